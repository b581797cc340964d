"""The manifests, compared with the code, with the image, and with each other.

Every overlay is found by its directory, and tested as kustomize renders it.
"""

import math
import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
import yaml

from agent import __version__
from agent.config.key import PLACEHOLDER_KEY
from tests.support.deployment_files import (
    DEPLOYMENT,
    default,
    image_user,
    image_volumes,
    manifest,
    name,
)
from tests.support.harness import ROOT

pytestmark = pytest.mark.process

BASE = DEPLOYMENT / "kubernetes" / "base"
OVERLAYS = sorted((DEPLOYMENT / "kubernetes" / "overlays").iterdir())
METRICS = DEPLOYMENT / "kubernetes" / "components" / "metrics"
WORKLOADS = {"DaemonSet", "StatefulSet", "Deployment"}
SCRIPTS = Path(sys.executable).parent
# Of a large cluster, and the seconds for a pod to be ready again, with the image to be fetched.
NODES = 200
STARTS = 60

each_kustomization = pytest.mark.parametrize("directory", [BASE, *OVERLAYS], ids=name)


def kubectl() -> str:
    """The path of kubectl: the tests' own, else the system's. Without one the test is skipped."""
    found = shutil.which("kubectl", path=SCRIPTS) or shutil.which("kubectl")
    if found:
        return found
    if os.environ.get("CI"):
        pytest.fail("kubectl is not installed: CI must not skip")
    pytest.skip("kubectl is not installed")


@cache
def rendered(directory: Path) -> dict[str, Any]:
    """What kustomize makes of a directory, by kind, checked against Kubernetes' schema."""
    argv = [kubectl(), "kustomize", str(directory)]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = {document["kind"]: document for document in yaml.safe_load_all(text)}
    with NamedTemporaryFile("w", suffix=".yaml") as file:
        # A PodMonitor is the Prometheus Operator's, and not in the schema.
        yaml.safe_dump_all((found[kind] for kind in found if kind != "PodMonitor"), file)
        file.flush()
        subprocess.run(
            [str(SCRIPTS / "kubernetes-validate"), "--strict", "--quiet", file.name], check=True
        )
    return found


def pod(directory: Path) -> Any:
    """The pod of the one workload that a directory is rendered to."""
    (kind,) = WORKLOADS.intersection(rendered(directory))
    return rendered(directory)[kind]["spec"]["template"]["spec"]


def container(directory: Path) -> Any:
    """Its one container."""
    (found,) = pod(directory)["containers"]
    return found


def variables(found: Any) -> dict[str, str]:
    """A container's variables that have a fixed value."""
    return {entry["name"]: entry["value"] for entry in found["env"] if "value" in entry}


@each_kustomization
def test_the_probes_of_a_pod_ask_its_status_page(directory: Path) -> None:
    host, _, port = variables(container(directory))["STATUS_ADDRESS"].partition(":")
    for probe, asked in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        get = container(directory)[probe]["httpGet"]
        assert (str(get["port"]), get["path"]) == (port, asked)
        # The kubelet probes the pod's address, or loopback if the pod has the node's network.
        assert get.get("host") == (host if pod(directory).get("hostNetwork") else None)


@each_kustomization
def test_a_pod_has_time_for_its_last_test_and_for_the_shutdown(directory: Path) -> None:
    hook = container(directory)["lifecycle"]["preStop"]["exec"]["command"]
    assert hook[0] == "timeout"
    grace = pod(directory)["terminationGracePeriodSeconds"]
    assert grace > int(hook[1]) + default("SHUTDOWN_TIMEOUT")


def test_a_rollout_of_200_nodes_takes_no_day() -> None:
    """At most: on each node a test runs that is longer than a pod is waited for."""
    share = rendered(BASE)["DaemonSet"]["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"]
    # Kubernetes rounds it up.
    at_a_time = math.ceil(NODES * int(share.removesuffix("%")) / 100)
    rounds = math.ceil(NODES / at_a_time)
    ends = pod(BASE)["terminationGracePeriodSeconds"]
    text = " ".join((ROOT / "docs" / "deployment.md").read_text().split())
    said = re.search(
        r"Of (\d+) nodes, (\d+) .* (\d+) rounds\. .* up to (\d+) s .* (\d+) hours", text
    )
    assert said
    hours = math.ceil(rounds * (ends + STARTS) / 3600)
    assert [int(number) for number in said.groups()] == [NODES, at_a_time, rounds, ends, hours]
    assert hours <= 2


@each_kustomization
def test_a_pod_has_its_key_and_its_state_on_mounted_volumes(directory: Path) -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in container(directory)["volumeMounts"]}
    given = variables(container(directory))
    assert given["AGENT_KEY_FILE"] == f"{mounts['keys']}/$(AGENT_NAME)"
    assert Path(given["STATE_DIR"]).parent == Path(mounts["state"])
    keys = next(
        volume["secret"] for volume in pod(directory)["volumes"] if volume["name"] == "keys"
    )
    # The agent refuses a key file that everybody can read.
    assert keys["defaultMode"] & 0o007 == 0
    names = [made["name"] for made in manifest(BASE / "kustomization.yaml")["secretGenerator"]]
    assert names == [keys["secretName"]]


@each_kustomization
def test_a_pod_runs_as_the_user_of_the_image_and_mounts_its_directories(directory: Path) -> None:
    user, group = image_user()
    context = pod(directory)["securityContext"]
    asked = (context["runAsUser"], context["runAsGroup"], context["fsGroup"])
    assert asked == (user, group, group)
    mounts = {mount["mountPath"] for mount in container(directory)["volumeMounts"]}
    assert image_volumes() <= mounts
    for first in pod(directory).get("initContainers", []):
        assert first["command"] == ["chown", f"{user}:{group}", *image_volumes()]


def test_an_overlay_in_another_network_differs_only_in_what_that_takes() -> None:
    base = container(BASE)
    elsewhere = [path for path in OVERLAYS if not pod(path).get("hostNetwork")]
    assert pod(BASE)["hostNetwork"] and elsewhere
    for path in elsewhere:
        ours = container(path)
        assert set(ours) == set(base)
        differing = {key for key in ours if ours[key] != base[key]}
        assert differing == {"env", "livenessProbe", "readinessProbe"}
        assert [entry["name"] for entry in ours["env"]] == [entry["name"] for entry in base["env"]]
        shared = (
            "securityContext",
            "terminationGracePeriodSeconds",
            "automountServiceAccountToken",
        )
        assert [pod(path)[key] for key in shared] == [pod(BASE)[key] for key in shared]


@each_kustomization
def test_a_kustomization_lists_every_file_and_names_no_other_version(directory: Path) -> None:
    made = manifest(directory / "kustomization.yaml")
    listed = {entry for entry in made["resources"] if entry.endswith(".yaml")}
    assert listed == {path.name for path in directory.iterdir()} - {"kustomization.yaml"}
    # An overlay without workloads and keys of its own has those of the base.
    assert {image["newTag"] for image in made.get("images", [])} <= {__version__}
    secrets = made.get("secretGenerator", [])
    keys = {line.partition("=")[2] for entry in secrets for line in entry["literals"]}
    assert keys <= {PLACEHOLDER_KEY}


@each_kustomization
def test_a_kustomization_renders_to_resources_that_fit(directory: Path) -> None:
    found, made = rendered(directory), container(directory)
    namespace = found["Namespace"]["metadata"]
    # Only the weakest level admits pods in the node's network.
    level = "privileged" if pod(directory).get("hostNetwork") else "restricted"
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == level
    others = [found[other]["metadata"]["namespace"] for other in found if other != "Namespace"]
    assert set(others) == {namespace["name"]}
    settings = found["ConfigMap"]["metadata"]["name"]
    assert made["envFrom"] == [{"configMapRef": {"name": settings}}]
    assert settings != "iperf-agent-settings", "a change of it would not roll out"
    assert made["image"].endswith(f":{__version__}")
    keys = {b64decode(key).decode() for key in found["Secret"]["data"].values()}
    assert keys == {PLACEHOLDER_KEY}


@each_kustomization
def test_the_component_for_metrics_opens_the_page_and_changes_nothing_else(
    tmp_path: Path, directory: Path
) -> None:
    shutil.copytree(DEPLOYMENT / "kubernetes", tmp_path / "kubernetes")
    places = [path.relative_to(DEPLOYMENT) for path in (directory, METRICS)]
    namespace = rendered(directory)["Namespace"]["metadata"]["name"]
    made = {"namespace": namespace, "resources": [f"{places[0]}"], "components": [f"{places[1]}"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(made))
    found, ours, plain = rendered(tmp_path), container(tmp_path), container(directory)
    (port,) = ours["ports"]
    (endpoint,) = found["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == (port["name"], "/metrics")
    (kind,) = WORKLOADS.intersection(found)
    labels = found[kind]["spec"]["template"]["metadata"]["labels"]
    assert found["PodMonitor"]["spec"]["selector"]["matchLabels"] == labels
    # Without a namespaceSelector it looks only into its own.
    assert found["PodMonitor"]["metadata"]["namespace"] == namespace
    assert variables(ours)["STATUS_ADDRESS"] == f"0.0.0.0:{port['containerPort']}"
    assert variables(ours) == variables(plain) | {"STATUS_ADDRESS": "0.0.0.0:9201"}
    names = [entry["name"] for entry in ours["env"]]
    assert names.index("AGENT_NAME") < names.index("AGENT_KEY_FILE"), "it is a part of it"
    for key in {*ours, *plain} - {"env", "ports"}:
        assert ours[key] == plain[key]


def test_the_documented_kustomization_changes_what_it_says(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "deployment.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "kustomization.yaml").write_text(example)
    shutil.copytree(DEPLOYMENT / "kubernetes", tmp_path / "deployment" / "kubernetes")
    (tmp_path / "keys").mkdir()
    for node in ("node-1", "node-2"):
        (tmp_path / "keys" / node).write_text(f"key of {node}\n")
    found = rendered(tmp_path)
    assert found["ConfigMap"]["data"]["MANAGER_URL"] == "https://manager.example.net"
    keys = {name: b64decode(key).decode() for name, key in found["Secret"]["data"].items()}
    assert keys == {"node-1": "key of node-1\n", "node-2": "key of node-2\n"}
    # The agents look for the Secret by this name, whatever its content.
    assert found["Secret"]["metadata"]["name"] == "iperf-agent-keys"
    made = found["DaemonSet"]["spec"]["template"]["spec"]
    assert made["containers"][0]["image"].startswith("registry.example.net/tools/iperf-agent:")
    assert [taint["effect"] for taint in made["tolerations"]] == ["NoSchedule"]
