"""The documented ways by which Prometheus gets the metrics on another host."""

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from socket import socket

import gevent
import pytest
import requests
import trustme
from gevent import subprocess
from gevent.event import Event

from agent.process.ports import is_listening
from tests.support.command import Ended, run_program
from tests.support.deployment_files import DEPLOYMENT
from tests.support.harness import ROOT, free_port, until
from tests.support.sockets import serving
from tests.support.status_page import Shown

Ask = Callable[[str, tuple[str, str] | None], requests.Response]

pytestmark = pytest.mark.process
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or ""
IN_CI = "CI" in os.environ
needs_nginx = pytest.mark.skipif(not (NGINX or IN_CI), reason="nginx is not installed")
needs_curl = pytest.mark.skipif(not (shutil.which("curl") or IN_CI), reason="curl is not installed")
REFUSAL = "open this page as localhost or by an IP address"
LOGIN = ("prometheus", "of-the-scraper")


def textfile(directory: Path, url: str) -> Ended:
    """Write the metrics at this URL for node_exporter."""
    return run_program(str(DEPLOYMENT / "textfile.sh"), str(directory), url, cwd=directory)


def names(text: str) -> set[str]:
    """The metrics that a text has."""
    return set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))


@needs_curl
def test_node_exporter_gets_all_metrics_in_a_file(shown: Shown, tmp_path: Path) -> None:
    ended = textfile(tmp_path, f"{shown.url}/metrics")
    assert ended.code == 0, ended.errors
    (file,) = tmp_path.iterdir()
    assert file.name == "iperf-agent.prom"
    assert file.stat().st_mode & 0o777 == 0o644, "node_exporter is another user"
    assert names(file.read_text()) == names(requests.get(f"{shown.url}/metrics").text)


@needs_curl
def test_an_answer_that_does_not_come_leaves_no_old_figures(tmp_path: Path) -> None:
    (tmp_path / "iperf-agent.prom").write_text("iperf_agent_ready 1\n")
    (tmp_path / "other.prom").write_text("")
    ended = textfile(tmp_path, f"http://127.0.0.1:{free_port()}/metrics")
    assert ended.code == 7 and "connect" in ended.errors
    assert [path.name for path in tmp_path.iterdir()] == ["other.prom"]


@needs_curl
def test_a_file_is_whole_at_any_time(tmp_path: Path) -> None:
    begun, broken = Event(), Event()

    def half(connection: socket) -> None:
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\niperf_agent_rea")
            begun.set()
            broken.wait()

    file = tmp_path / "iperf-agent.prom"
    file.write_text("iperf_agent_ready 1\n")
    with serving(half) as url:
        writing = gevent.spawn(textfile, tmp_path, url)
        assert begun.wait(30)
        until(lambda: any(".prom." in path.name for path in tmp_path.iterdir()))
        assert [path.name for path in tmp_path.glob("*.prom")] == [file.name]
        assert file.read_text() == "iperf_agent_ready 1\n"
        broken.set()
        assert writing.get().code != 0
    assert not [*tmp_path.iterdir()]


@needs_curl
def test_a_link_in_the_directory_is_not_followed(shown: Shown, tmp_path: Path) -> None:
    """root writes there, and it may be another user's."""
    victim, directory = tmp_path / "victim", tmp_path / "collector"
    victim.write_text("root's")
    victim.chmod(0o600)
    directory.mkdir()
    script = [str(DEPLOYMENT / "textfile.sh"), str(directory), f"{shown.url}/metrics"]
    line = 'ln -s ../victim "$1/iperf-agent.prom.$$"; exec "$0" "$1" "$2"'
    assert run_program("sh", "-c", line, *script, cwd=tmp_path).code != 0
    assert (victim.read_text(), victim.stat().st_mode & 0o777) == ("root's", 0o600)
    assert run_program(*script, cwd=tmp_path).code == 0


@needs_curl
def test_a_shutdown_leaves_no_half_file(tmp_path: Path) -> None:
    begun = Event()

    def silent(connection: socket) -> None:
        with connection:
            connection.recv(65536)
            begun.set()
            connection.recv(65536)

    with serving(silent) as url:
        argv = [str(DEPLOYMENT / "textfile.sh"), str(tmp_path), url]
        with subprocess.Popen(argv, start_new_session=True) as script:
            assert begun.wait(30)
            assert [*tmp_path.iterdir()]
            os.killpg(script.pid or 0, signal.SIGTERM)
    assert not [*tmp_path.iterdir()]


@contextmanager
def nginx(directory: Path, shown: Shown, *changes: tuple[str, str]) -> Iterator[Ask]:
    """The documented proxy before the page; gives what asks it for a path."""
    (server,) = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs/metrics.md").read_text(), re.DOTALL)
    ca, port = trustme.CA(), free_port()
    ca.cert_pem.write_to_path(directory / "ca.pem")
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(directory / "host.pem")
    argv = ["openssl", "passwd", "-apr1", LOGIN[1]]
    hashed = subprocess.check_output(argv, text=True)
    (directory / "htpasswd").write_text(f"{LOGIN[0]}:{hashed}")
    for old, new in [
        ("9443", f"127.0.0.1:{port}"),
        ("/etc/ssl/certs/host.pem", f"{directory}/host.pem"),
        ("/etc/ssl/private/host.key", f"{directory}/host.pem"),
        ("/etc/nginx/iperf-agent.htpasswd", f"{directory}/htpasswd"),
        ("http://127.0.0.1:9201", shown.url),
        *changes,
    ]:
        assert old in server
        server = server.replace(old, new)
    # The workers may read what is this user's alone.
    settings = "user root;" if os.geteuid() == 0 else ""
    settings += f"daemon off; pid {directory}/pid; error_log stderr; events {{}}\n"
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (directory / "nginx.conf").write_text(
        f"{settings} http {{ access_log off; {temporary}\n{server}\n}}"
    )
    command = [NGINX, "-p", str(directory), "-e", "stderr", "-c", str(directory / "nginx.conf")]
    with subprocess.Popen(command) as proxy:
        try:
            until(lambda: is_listening(proxy.pid or 0, port))
            yield partial(_ask, f"https://127.0.0.1:{port}", directory / "ca.pem")
        finally:
            proxy.terminate()


def _ask(url: str, ca_file: Path, path: str, login: tuple[str, str] | None) -> requests.Response:
    # By the host's name, as Prometheus does.
    named = {"Host": "edge-7.example.com:9443"}
    return requests.get(url + path, auth=login, headers=named, verify=str(ca_file), timeout=30)


@needs_nginx
def test_prometheus_gets_all_metrics_through_nginx(shown: Shown, tmp_path: Path) -> None:
    with nginx(tmp_path, shown) as ask:
        answer = ask("/metrics", LOGIN)
        assert answer.status_code == 200
        assert names(answer.text) == names(requests.get(f"{shown.url}/metrics").text)
        assert ask("/metrics", None).status_code == 401
        assert ask("/metrics", (LOGIN[0], "another")).status_code == 401
        assert [ask(path, LOGIN).status_code for path in ("/", "/status")] == [404, 404]


@needs_nginx
def test_a_proxy_that_passes_its_own_name_on_is_refused(shown: Shown, tmp_path: Path) -> None:
    with nginx(tmp_path, shown, ("Host localhost", "Host $host")) as ask:
        answer = ask("/metrics", LOGIN)
    assert (answer.status_code, answer.text) == (403, f"{REFUSAL}\n")
    assert f"`{REFUSAL}`" in (ROOT / "docs/metrics.md").read_text()
