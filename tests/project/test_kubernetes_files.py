"""The manifests, compared with the code, with the image, and with each other."""

import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode
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

BASE = DEPLOYMENT / "kubernetes" / "base"
FEW = DEPLOYMENT / "kubernetes" / "overlays" / "few"
PODS = [BASE / "daemonset.yaml", FEW / "statefulset.yaml"]
SCRIPTS = Path(sys.executable).parent


def pod(path: Path) -> Any:
    """The pod that a DaemonSet or a StatefulSet makes."""
    return manifest(path)["spec"]["template"]["spec"]


def container(path: Path) -> Any:
    """Its one container."""
    (found,) = pod(path)["containers"]
    return found


def variables(found: Any) -> dict[str, str]:
    """A container's variables that have a fixed value."""
    return {entry["name"]: entry["value"] for entry in found["env"] if "value" in entry}


@pytest.mark.parametrize("path", PODS, ids=name)
def test_a_pods_probes_ask_where_the_page_is(path: Path) -> None:
    host, _, port = variables(container(path))["STATUS_ADDRESS"].partition(":")
    for probe, asked in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        get = container(path)[probe]["httpGet"]
        assert (str(get["port"]), get["path"]) == (port, asked)
        # The kubelet reaches another network's pod at its address, and the node's at loopback.
        assert get.get("host") == (host if pod(path).get("hostNetwork") else None)


@pytest.mark.parametrize("path", PODS, ids=name)
def test_a_pod_has_time_for_its_last_test_and_for_the_shutdown(path: Path) -> None:
    hook = container(path)["lifecycle"]["preStop"]["exec"]["command"]
    assert hook[0] == "timeout"
    grace = pod(path)["terminationGracePeriodSeconds"]
    assert grace > int(hook[1]) + default("SHUTDOWN_TIMEOUT")


@pytest.mark.parametrize("path", PODS, ids=name)
def test_a_pod_keeps_its_key_and_its_state_where_they_are_mounted(path: Path) -> None:
    mounts = {mount["name"]: mount["mountPath"] for mount in container(path)["volumeMounts"]}
    given = variables(container(path))
    assert given["AGENT_KEY_FILE"] == f"{mounts['keys']}/$(AGENT_NAME)"
    assert Path(given["STATE_DIR"]).parent == Path(mounts["state"])
    keys = next(volume["secret"] for volume in pod(path)["volumes"] if volume["name"] == "keys")
    # What everybody can read is no key file to the agent.
    assert keys["defaultMode"] & 0o007 == 0
    names = [made["name"] for made in manifest(BASE / "kustomization.yaml")["secretGenerator"]]
    assert names == [keys["secretName"]]


@pytest.mark.parametrize("path", PODS, ids=name)
def test_a_pod_runs_as_the_images_user_and_keeps_to_the_images_directory(path: Path) -> None:
    user, group = image_user()
    context = pod(path)["securityContext"]
    asked = (context["runAsUser"], context["runAsGroup"], context["fsGroup"])
    assert asked == (user, group, group)
    mounts = {mount["mountPath"] for mount in container(path)["volumeMounts"]}
    assert image_volumes() <= mounts
    for first in pod(path).get("initContainers", []):
        assert first["command"] == ["chown", f"{user}:{group}", *image_volumes()]


def test_the_few_differ_from_one_a_node_in_what_they_must() -> None:
    few, each = container(FEW / "statefulset.yaml"), container(BASE / "daemonset.yaml")
    assert set(few) == set(each)
    assert {key for key in few if few[key] != each[key]} == {
        "env",
        "livenessProbe",
        "readinessProbe",
    }
    names = [[entry["name"] for entry in found["env"]] for found in (few, each)]
    assert names[0] == names[1]
    few_pod, each_pod = (pod(path) for path in reversed(PODS))
    shared = ("securityContext", "terminationGracePeriodSeconds", "automountServiceAccountToken")
    assert [few_pod[key] for key in shared] == [each_pod[key] for key in shared]


@pytest.mark.parametrize("directory", [BASE, FEW], ids=name)
def test_a_kustomization_names_every_file_and_the_version_of_the_agent(directory: Path) -> None:
    made = manifest(directory / "kustomization.yaml")
    listed = {entry for entry in made["resources"] if entry.endswith(".yaml")}
    assert listed == {path.name for path in directory.iterdir()} - {"kustomization.yaml"}
    assert [image["newTag"] for image in made["images"]] == [__version__]
    keys = [
        line.partition("=")[2] for entry in made["secretGenerator"] for line in entry["literals"]
    ]
    assert set(keys) == {PLACEHOLDER_KEY}


def kubectl() -> str:
    """The one that belongs to the tests; where there is no wheel of it, the system's or a skip."""
    found = shutil.which("kubectl", path=SCRIPTS) or shutil.which("kubectl")
    if found:
        return found
    if os.environ.get("CI"):
        pytest.fail("kubectl is not installed: CI must not skip")
    pytest.skip("kubectl is not installed")


def rendered(directory: Path) -> dict[str, Any]:
    """What kustomize makes of a directory, by kind; each fits Kubernetes' schema."""
    argv = [kubectl(), "kustomize", str(directory)]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    with NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        subprocess.run(
            [str(SCRIPTS / "kubernetes-validate"), "--strict", "--quiet", file.name], check=True
        )
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


@pytest.mark.parametrize(
    ("directory", "kind", "level"),
    [(BASE, "DaemonSet", "privileged"), (FEW, "StatefulSet", "restricted")],
)
def test_a_kustomization_renders_to_resources_that_fit(
    directory: Path, kind: str, level: str
) -> None:
    found = rendered(directory)
    assert {"DaemonSet", "StatefulSet"}.intersection(found) == {kind}
    namespace = found["Namespace"]["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == level
    others = [found[other]["metadata"]["namespace"] for other in found if other != "Namespace"]
    assert set(others) == {namespace["name"]}
    made = found[kind]["spec"]["template"]["spec"]["containers"][0]
    settings = found["ConfigMap"]["metadata"]["name"]
    assert made["envFrom"] == [{"configMapRef": {"name": settings}}]
    assert settings != "iperf-agent-settings", "a change of it would not roll out"
    assert made["image"].endswith(f":{__version__}")


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
    # The agents look for it by this name, whatever its content.
    assert found["Secret"]["metadata"]["name"] == "iperf-agent-keys"
    made = found["DaemonSet"]["spec"]["template"]["spec"]
    assert made["containers"][0]["image"].startswith("registry.example.net/tools/iperf-agent:")
    assert [taint["effect"] for taint in made["tolerations"]] == ["NoSchedule"]
