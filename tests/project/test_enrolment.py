"""`deployment/enrol.py`, run as its users do, against real Managers."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
import trustme
import yaml
from gevent import subprocess

from tests.support import tls
from tests.support.command import Ended
from tests.support.deployment_files import DEPLOYMENT
from tests.support.faulty_manager import FaultyManager, Request, raw_reply, reply
from tests.support.harness import AgentProcess, environment, until
from tests.support.manager_process import ManagerProcess, killable
from tests.support.proxy import proxy as proxying

pytestmark = pytest.mark.process

SCRIPT = DEPLOYMENT / "enrol.py"
TEMPLATE = DEPLOYMENT / "cloud-init.yaml"
PASSWORD = "admin123"
NAMES = [f"edge-{number:03}" for number in range(1, 201)]
# As much of the names as the tests need that break something in the middle.
MIDDLE = 40


class Desk:
    """Where an operator enrols names: a directory, and the Manager's URL."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory, self.url = directory, url
        self.keys = directory / "keys"
        self._said: list[str] = []

    def start(self, names: list[str], *options: str, **variables: str) -> subprocess.Popen:
        """Begin to enrol these names."""
        file = self.directory / "names"
        file.write_text("\n".join(names))
        settings = {"MANAGER_URL": self.url, "ADMIN_PASSWORD": PASSWORD, **variables}
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), str(file), *options],
            cwd=self.directory,
            env=environment(**settings),
            stdin=subprocess.DEVNULL,  # type: ignore[attr-defined]
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def enrol(self, names: list[str], *options: str, **variables: str) -> Ended:
        """Enrol these names, and wait for the end."""
        return self.end(self.start(names, *options, **variables))

    def end(self, process: subprocess.Popen) -> Ended:
        """Wait for its end. What it says is kept for `check_secrets`."""
        output, errors = process.communicate(timeout=50)
        assert "Traceback" not in errors, errors
        self._said += [output, errors]
        return Ended(int(process.wait()), output, errors)

    def here(self) -> dict[str, str]:
        """The keys that are here, by name."""
        return {path.stem: path.read_text().strip() for path in self.keys.glob("*.key")}

    def check_secrets(self) -> None:
        """No key and no password was said, and nobody else can read what was written."""
        for said in self._said:
            assert PASSWORD not in said
            assert not [key for key in self.here().values() if key in said]
        assert self.keys.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in self.keys.iterdir()} <= {0o600}


def at(manager: ManagerProcess) -> dict[str, str]:
    """The keys that the Manager has, by name, but for agent a1's own."""
    found = manager.api.call("GET", "agents").json()
    return {agent["name"]: agent["registration_key"] for agent in found if agent["name"] != "a1"}


def row(ended: Ended, name: str) -> list[str]:
    """A name's row of the table."""
    (line,) = [line for line in ended.output.splitlines() if line.startswith(f"{name} ")]
    return re.split("  +", line)[1:]


@pytest.fixture(name="manager")
def fixture_manager(tmp_path: Path) -> Iterator[ManagerProcess]:
    """A dev Manager that keeps everything over a restart."""
    with killable("--state", str(tmp_path / "manager.json")) as manager:
        yield manager


@pytest.fixture(name="desk")
def fixture_desk(tmp_path: Path, manager: ManagerProcess) -> Iterator[Desk]:
    """Its operator's desk, whose secrets are checked in the end."""
    desk = Desk(tmp_path, manager.url)
    yield desk
    if desk.keys.exists():
        desk.check_secrets()


@pytest.mark.slow
def test_200_names_are_enrolled_once(desk: Desk, manager: ManagerProcess) -> None:
    first = desk.enrol(NAMES)
    assert first.code == 0, first.errors
    assert first.output.splitlines()[-1] == "200 names: 200 created, 200 never registered"
    assert desk.here() == at(manager)
    assert sorted(desk.here()) == NAMES and len(set(desk.here().values())) == len(NAMES)
    second = desk.enrol(NAMES)
    assert second.code == 0, second.errors
    assert second.output.splitlines()[-1] == "200 names: 200 kept, 200 never registered"
    assert desk.here() == at(manager)


def test_an_agent_with_its_key_is_online(desk: Desk, manager: ManagerProcess) -> None:
    assert desk.enrol(["left", "right"]).code == 0
    key_file = {"AGENT_NAME": "left", "AGENT_KEY_FILE": str(desk.keys / "left.key")}
    state = {"MANAGER_URL": manager.url, "STATE_DIR": str(desk.directory / "state")}
    agent = AgentProcess(cwd=desk.directory, **key_file, **state)
    try:
        agent.wait_for("registered")
        manager.api.call("POST", "agents/3/disable")
        ended = desk.enrol(["left", "right"])
    finally:
        agent.close()
    assert row(ended, "left")[:3] == ["kept", "online", "127.0.0.1"]
    assert row(ended, "right") == ["kept", "disabled", "-", "-"]
    assert ended.output.splitlines()[-1] == "2 names: 2 kept, 1 online, 1 disabled"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["killed", "frozen"])
def test_what_a_crash_has_left_is_completed(desk: Desk, manager: ManagerProcess, way: str) -> None:
    """Killed anywhere, or while the Manager has a call and no answer came."""
    process = desk.start(NAMES)
    until(lambda: len(at(manager)) >= MIDDLE)
    if way == "frozen":
        manager.freeze()
        until(lambda: stands_still(desk.keys))
    process.send_signal(signal.SIGKILL)
    process.wait()
    if way == "frozen":
        manager.thaw()
    before = desk.here()
    assert MIDDLE <= len(before) < len(NAMES)
    ended = desk.enrol(NAMES)
    assert ended.code == 0, ended.errors
    # The key that was on the disk is the one that the Manager has, whether it was told or not.
    assert desk.here() == at(manager) and sorted(desk.here()) == NAMES
    assert before.items() <= desk.here().items()


def stands_still(keys: Path) -> bool:
    """Whether no key is written any more."""
    before = len(list(keys.iterdir()))
    gevent.sleep(0.3)
    return len(list(keys.iterdir())) == before


@pytest.mark.slow
def test_a_manager_that_goes_away_in_the_middle(desk: Desk, manager: ManagerProcess) -> None:
    process = desk.start(NAMES)
    until(lambda: len(at(manager)) >= MIDDLE)
    manager.kill()
    ended = desk.end(process)
    assert ended.code == 1
    assert re.search(r"^\d+ of 200 names are enrolled: run the same command again", ended.errors)
    manager.start()
    assert desk.enrol(NAMES).code == 0
    assert desk.here() == at(manager) and sorted(desk.here()) == NAMES


def test_a_wrong_password(desk: Desk, manager: ManagerProcess) -> None:
    ended = desk.enrol(NAMES, ADMIN_PASSWORD="not-it")
    assert ended.code == 1
    assert "/v1/auth/login: 401: wrong user name or password" in ended.errors
    assert "not-it" not in ended.errors
    assert not at(manager) and not desk.here()


def test_a_password_in_a_file(desk: Desk, manager: ManagerProcess, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    assert desk.enrol(["x"], "--password-file", "password", ADMIN_PASSWORD="").code == 0
    assert at(manager) == desk.here()


def test_a_directory_that_cannot_be_written(desk: Desk, manager: ManagerProcess) -> None:
    desk.keys.mkdir(mode=0o500)
    argv = [sys.executable, str(SCRIPT), "-"]
    if os.geteuid() == 0:
        # Root may write anywhere.
        argv = ["setpriv", "--bounding-set=-dac_override", *argv]
    done = subprocess.run(
        argv,
        cwd=desk.directory,
        env=environment(MANAGER_URL=manager.url, ADMIN_PASSWORD=PASSWORD),
        input="x\n",
        capture_output=True,
        text=True,
    )
    desk.keys.chmod(0o700)
    assert done.returncode == 1
    assert "keys/x.key.new: Permission denied" in done.stderr
    assert not at(manager), "it was made known without its key on the disk"


def test_a_directory_that_others_may_read(desk: Desk, manager: ManagerProcess) -> None:
    desk.keys.mkdir(mode=0o755)
    ended = desk.enrol(["x"])
    desk.keys.chmod(0o700)
    assert (
        ended.code == 1
        and "others may look into keys: make it yours, and chmod 0700 it" in ended.errors
    )
    assert not at(manager) and not desk.here()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes what is another's")
def test_a_directory_of_somebody_else(desk: Desk, manager: ManagerProcess) -> None:
    desk.keys.mkdir(mode=0o700)
    (desk.keys / "x.key").write_text("a-key-that-he-knows\n")
    (desk.keys / "x.key").chmod(0o600)
    os.chown(desk.keys, 65534, 65534)
    ended = desk.enrol(["x"])
    assert ended.code == 1 and "others may look into keys: make it yours" in ended.errors
    assert not at(manager)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a disk")
def test_a_full_disk_is_named(desk: Desk, manager: ManagerProcess) -> None:
    desk.keys.mkdir(mode=0o700)
    subprocess.check_call(["mount", "-t", "tmpfs", "-o", "size=16k,mode=700", "x", desk.keys])
    try:
        (desk.keys / "other").write_bytes(bytes(12288))
        (desk.keys / "other").chmod(0o600)
        ended = desk.enrol(["x", "y"])
        assert ended.code == 1 and "1 of 2 names are enrolled" in ended.errors
        assert "Error: keys: No space left on device" in ended.errors
        (desk.keys / "other").unlink()
        assert desk.enrol(["x", "y"]).code == 0
        assert at(manager) == desk.here()
    finally:
        subprocess.check_call(["umount", desk.keys])


def test_bad_names_are_told_before_anything_is_done(desk: Desk, manager: ManagerProcess) -> None:
    names = ["# the north", "a", "b  # of the lab", "", "A", "-c", "d e", "ü", "../f"]
    ended = desk.enrol(names)
    assert ended.code == 1
    assert "'a' is given 2 times" in ended.errors
    for bad in ("-c", "d e", "ü", "../f"):
        assert f"{bad!r} must be 1 to 64 letters" in ended.errors
    assert not at(manager) and not desk.keys.exists()


def test_a_name_that_is_taken(desk: Desk, manager: ManagerProcess) -> None:
    ended = desk.enrol(["a1", "b1"])
    assert ended.code == 1
    assert "a1: it is at the Manager, and keys/a1.key is not here" in ended.errors
    assert "or give --rekey" in ended.errors
    assert (row(ended, "a1")[0], row(ended, "b1")[0]) == ("refused", "created")
    assert list(desk.here()) == ["b1"]
    again = desk.enrol(["a1", "b1"], "--rekey")
    assert again.code == 0, again.errors
    assert (row(again, "a1")[0], row(again, "b1")[0]) == ("re-keyed", "kept")
    assert manager.api.call("GET", "agents/1").json()["registration_key"] == desk.here()["a1"]


def test_a_key_that_is_not_the_managers(desk: Desk, manager: ManagerProcess) -> None:
    assert desk.enrol(["x"]).code == 0
    mine = desk.here()
    manager.api.call("PUT", "agents/2", {"registration_key": "changed-at-the-manager"})
    ended = desk.enrol(["x"])
    assert ended.code == 1
    assert "x: its key at the Manager is not the one that is here" in ended.errors
    assert "changed-at-the-manager" not in ended.output + ended.errors
    assert at(manager) == {"x": "changed-at-the-manager"}
    assert desk.enrol(["x"], "--rekey").code == 0
    assert at(manager) == mine == desk.here()


def keeping(record: dict[str, Any], given: list[Any]) -> Callable[[Request], bytes]:
    """Answers of a Manager whose one agent is this, whatever it is given."""

    def answer(request: Request) -> bytes:
        if request.call == "login":
            return reply({"access_token": "t"})
        if request.method == "GET":
            return reply([record])
        given.append(request.json())
        return reply({**record, "name": "x"})

    return answer


def test_a_manager_that_shows_no_key_gets_a_new_one(
    faulty: Callable[..., FaultyManager], tmp_path: Path
) -> None:
    given: list[Any] = []
    desk = Desk(tmp_path, faulty(keeping({"id": 7, "name": "x"}, given)).url)
    assert desk.enrol(["x"]).code == 1 and not given
    ended = desk.enrol(["x"], "--rekey")
    assert ended.code == 0 and row(ended, "x")[0] == "re-keyed"
    assert given == [{"registration_key": desk.here()["x"]}]
    ended = desk.enrol(["x"])
    assert ended.code == 0 and row(ended, "x")[0] == "kept" and len(given) == 1


@pytest.mark.parametrize("name", ["x", "new"])
def test_a_manager_that_keeps_to_another_key(
    faulty: Callable[..., FaultyManager], tmp_path: Path, name: str
) -> None:
    record = {"id": 7, "name": "x", "registration_key": "of-the-manager"}
    ended = Desk(tmp_path, faulty(keeping(record, [])).url).enrol([name], "--rekey")
    assert ended.code == 1 and row(ended, name)[0] == "refused"
    assert f"{name}: the Manager answers well, and has another key" in ended.errors
    assert "of-the-manager" not in ended.output + ended.errors


def test_what_a_manager_says_steers_no_terminal(
    faulty: Callable[..., FaultyManager], tmp_path: Path
) -> None:
    record = {"id": 7, "name": "y", "status": "on\x1b[1mline", "ip_address": "\x1b]0;x\x07\ny"}
    answer = keeping({**record, "last_heartbeat": "now\u202e"}, [])
    ended = Desk(tmp_path, faulty(answer).url).enrol(["x", "y"])
    assert row(ended, "y")[1:] == [r"on\x1b[1mline", r"\x1b]0;x\x07\ny", r"now\u202e"]
    assert all(char.isprintable() for char in ended.output.replace("\n", ""))


@pytest.mark.parametrize("password", ['a"b\\ZYX', "\xe4ZYX", "it's ZYX"])
def test_a_refusal_that_repeats_the_password(
    faulty: Callable[..., FaultyManager], tmp_path: Path, password: str
) -> None:
    told: list[Callable[[str], str]] = [
        str,
        lambda sent: f"{json.loads(sent)}",
        lambda sent: password,
    ]
    for repeat in told:
        message = {"message": f"no: {repeat(json.dumps({'password': password}))}"}
        url = faulty(lambda _, message=message: reply(message, 401)).url
        ended = Desk(tmp_path, url).enrol(["x"], ADMIN_PASSWORD=password)
        assert ended.code == 1 and "login: 401: no: " in ended.errors
        assert "[hidden]" in ended.errors and "ZYX" not in ended.errors


@pytest.mark.parametrize("token", ["t\u20ac", "t\r\nX: y", ""])
def test_a_token_that_is_none(
    faulty: Callable[..., FaultyManager], tmp_path: Path, token: str
) -> None:
    ended = Desk(tmp_path, faulty(lambda _: reply({"access_token": token})).url).enrol(["x"])
    assert ended.code == 1 and "this is no answer of a Manager" in ended.errors


def test_a_redirect_is_not_followed(faulty: Callable[..., FaultyManager], tmp_path: Path) -> None:
    other = faulty(lambda _: reply({"access_token": "t"}))
    there = f"{other.url}/v1/auth/login"
    manager = faulty(lambda _: raw_reply(b"", 308, Location=there))
    ended = Desk(tmp_path, manager.url).enrol(["x"])
    assert ended.code == 1 and f"/v1/auth/login: 308: a redirect, not followed, to {there}" in (
        ended.errors
    )
    assert not other.requests


@pytest.mark.parametrize("host", ["a..b", "a" * 70])
def test_a_url_without_a_possible_host(tmp_path: Path, host: str) -> None:
    ended = Desk(tmp_path, f"http://{host}").enrol(["x"])
    assert ended.code == 1 and "cannot be sent: check MANAGER_URL" in ended.errors


def test_two_runs_at_a_time(desk: Desk, manager: ManagerProcess) -> None:
    process = desk.start(NAMES)
    until(lambda: len(at(manager)) >= 1)
    ended = desk.enrol(NAMES)
    process.kill()
    process.wait()
    assert ended.code == 1 and "another run uses keys: wait for its end" in ended.errors


def answered(*, status: int, told: Any) -> Callable[[Request], bytes]:
    """Answers of a Manager that refuses each agent in these words."""

    def answer(request: Request) -> bytes:
        if request.call == "login":
            return reply({"access_token": "t", "token_type": "bearer"})
        if request.method == "GET":
            return reply([])
        return reply(told(request), status)

    return answer


def as_fastapi(request: Request) -> object:
    """A 422 that repeats what was sent, in two ways."""
    words = f"taken: {request.json()}"
    return {"detail": [{"loc": ["body", "name"], "input": request.json(), "msg": words}]}


def as_the_manager(request: Request) -> object:
    """A 409 that repeats what was sent."""
    return {"error": "conflict", "message": f"taken: {request.json()}", "details": {}}


@pytest.mark.parametrize(("status", "told"), [(422, as_fastapi), (409, as_the_manager)])
def test_a_refusal_that_repeats_the_key(
    faulty: Callable[..., FaultyManager],
    tmp_path: Path,
    status: int,
    told: Callable[[Request], object],
) -> None:
    desk = Desk(tmp_path, faulty(answered(status=status, told=told)).url)
    ended = desk.enrol(["x", "y"])
    assert ended.code == 1
    for name in ("x", "y"):
        words = f"/v1/agents: {status}: taken: {{'name': '{name}', 'registration_key': '[hidden]'}}"
        assert words in ended.errors
    assert "2 names: 2 refused, 2 unknown" in ended.output
    desk.check_secrets()


@pytest.mark.parametrize("status", [401, 500, 503])
def test_a_refusal_of_all_calls_ends_it(
    faulty: Callable[..., FaultyManager], tmp_path: Path, status: int
) -> None:
    manager = faulty(answered(status=status, told=lambda _: {"detail": "not now"}))
    ended = Desk(tmp_path, manager.url).enrol(["x", "y"])
    assert ended.code == 1
    assert f"/v1/agents: {status}: not now" in ended.errors
    assert manager.calls() == ["login", "agents?include_disabled=true", "agents"]


DEEP = b"[" * 100_000


@pytest.mark.parametrize("body", [b"<html>", b'{"access_token":"\xff"}', b'{"a":%b' % DEEP])
def test_what_is_no_manager(
    faulty: Callable[..., FaultyManager], tmp_path: Path, body: bytes
) -> None:
    ended = Desk(tmp_path, faulty(lambda _: raw_reply(body)).url).enrol(["x"])
    assert ended.code == 1 and "this is no answer of a Manager" in ended.errors


def test_a_refusal_without_words(faulty: Callable[..., FaultyManager], tmp_path: Path) -> None:
    ended = Desk(tmp_path, faulty(lambda _: raw_reply(DEEP, 401)).url).enrol(["x"])
    assert ended.code == 1 and ended.errors.endswith("/v1/auth/login: 401\n")


def test_a_manager_with_a_ca_of_its_own(desk: Desk, manager: ManagerProcess) -> None:
    authority = tls.Authority(trustme.CA(), trustme.CA(), desk.directory)
    with tls.front(manager.url, tls.good(authority)) as front:
        desk.url = front.url
        ended = desk.enrol(["x"])
        assert ended.code == 1 and "set MANAGER_CA_FILE to that CA's" in ended.errors
        stranger = {"REQUESTS_CA_BUNDLE": str(authority.stranger_file)}
        assert desk.enrol(["x"], **authority.trusting, **stranger).code == 0
    assert at(manager) == desk.here()


def test_a_netrc_is_not_for_this(desk: Desk, manager: ManagerProcess, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password else\n")
    ended = desk.enrol(["x"], HOME=str(tmp_path))
    assert ended.code == 0, ended.errors


def test_a_manager_behind_a_proxy(desk: Desk, manager: ManagerProcess) -> None:
    desk.url = "http://manager.example:8000"
    with proxying(manager.url, login="user:of-the-proxy") as proxy:
        ended = desk.enrol(["x"], HTTP_PROXY=f"http://{proxy.host}")
        assert ended.code == 1 and "wants a user and a password in its URL" in ended.errors
        ended = desk.enrol(["x"], HTTP_PROXY=proxy.url)
    assert ended.code == 0, ended.errors
    assert ended.errors == "Warning: the password and the keys are sent over plain http.\n"
    assert "of-the-proxy" not in ended.output + ended.errors
    assert at(manager) == desk.here()


def test_user_data_differs_from_the_template_in_three_files(
    desk: Desk, manager: ManagerProcess
) -> None:
    lines = ["--index-url https://packages.example.net/simple", "iperf-orchestrator-agent==9.9"]
    (desk.directory / "lines").write_text("\n".join(lines))
    options = ("--user-data", str(TEMPLATE), "--requirements", "lines")
    assert desk.enrol(["left", "right"], *options).code == 0
    plain = yaml.safe_load(TEMPLATE.read_text())
    for name, key in desk.here().items():
        text = (desk.keys / f"{name}.yaml").read_text()
        assert text.startswith("#cloud-config\n")
        made = yaml.safe_load(text)
        files = {file["path"]: file for file in made["write_files"]}
        assert files["/etc/iperf-agent/agent.key"]["content"] == f"{key}\n"
        settings = files["/etc/iperf-agent/agent.env"]["content"].splitlines()
        assert settings == [f"MANAGER_URL={manager.url}", f"AGENT_NAME={name}"]
        wanted = files["/etc/iperf-agent/requirements.txt"]["content"].splitlines()
        assert wanted == lines
        for file in plain["write_files"][:3]:
            files[file["path"]]["content"] = file["content"]
        assert made == plain, "something else was changed"


def test_user_data_of_ones_own_copy_keeps_its_lines(desk: Desk) -> None:
    own = TEMPLATE.read_text()
    own = re.sub("https://packages.example.com/", "https://packages.example.net/", own)
    own = own.replace(
        "      MANAGER_URL=https://manager.example.com\n",
        "      # ours\n      MANAGER_URL=https://manager.example.com\n\n      MAX_BITRATE=1G\n",
    )
    (desk.directory / "own.yaml").write_text(own)
    assert desk.enrol(["left"], "--user-data", "own.yaml").code == 0
    made = yaml.safe_load((desk.keys / "left.yaml").read_text())
    settings, _, wanted = [file["content"] for file in made["write_files"][:3]]
    assert settings == (f"MANAGER_URL={desk.url}\n# ours\n\nMAX_BITRATE=1G\nAGENT_NAME=left\n")
    assert wanted == yaml.safe_load(own)["write_files"][2]["content"]


def as_it_is(text: str) -> str:
    """As shipped."""
    return text


def indented(text: str, blanks: int) -> str:
    """With contents that begin after so many blanks."""
    ours, mark, rest = text.partition("  # Do not edit anything")
    assert mark
    return re.sub(r"(?m)^ {6}(?=\S)", " " * blanks, ours) + mark + rest


def indented_more(text: str) -> str:
    """With contents that begin further to the right, and a blank line in one."""
    return indented(text, 9).replace("         MAX_TASKS", "  \n         MAX_TASKS")


def indented_less(text: str) -> str:
    """With contents that begin further to the left."""
    return indented(text, 5)


def marked(text: str) -> str:
    """As an editor on Windows writes it."""
    return "\ufeff" + text.replace("\n", "\r\n")


def spaced(text: str) -> str:
    """With blanks where YAML and systemd let them be."""
    text = text.replace("content: |\n", "content: |  \n")
    return text.replace("MANAGER_URL=", "MANAGER_URL = ")


def key_last(text: str) -> str:
    """With the key at the end, and without a last line break."""
    before, after = text.index("  # This agent's"), text.index("  # The package")
    end = next(found.start() for found in re.finditer(r"(?m)^\w+:", text) if found.start() > after)
    return f"{text[end:]}{text[:before]}{text[after:end]}{text[before:after].rstrip()}"


@pytest.mark.parametrize("edit", [as_it_is, indented_more, indented_less, marked, spaced, key_last])
def test_any_way_of_writing_a_copy_is_taken(desk: Desk, edit: Callable[[str], str]) -> None:
    own = TEMPLATE.read_text().replace("packages.example.com", "packages.example.net")
    url = "MANAGER_URL=https://manager.example.com\n"
    own = own.replace(url, f"{url}      MAX_TASKS=7\n")
    (desk.directory / "own.yaml").write_text(edit(own), newline="")
    ended = desk.enrol(["left"], "--user-data", "own.yaml")
    assert ended.code == 0, ended.errors
    text = (desk.keys / "left.yaml").read_bytes().decode()
    assert edit is key_last or text.startswith("#cloud-config\n")
    made = {file["path"]: file["content"] for file in yaml.safe_load(text)["write_files"]}
    settings = made["/etc/iperf-agent/agent.env"].split()
    assert settings == [f"MANAGER_URL={desk.url}", "MAX_TASKS=7", "AGENT_NAME=left"]
    assert made["/etc/iperf-agent/agent.key"] == f"{desk.here()['left']}\n"
    assert "https://packages.example.net/" in made["/etc/iperf-agent/requirements.txt"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("", ""), "still has packages.example.com: give --requirements"),
        (("      https://packages.example.com", "      # https"), "lines for pip are empty"),
        (("Installs", "\udce4"), "must be in UTF-8"),
        (("agent.env", "other.env"), "has no `- path: /etc/iperf-agent/agent.env`"),
    ],
)
def test_a_template_that_does_not_fit_is_told_first(
    desk: Desk, manager: ManagerProcess, change: tuple[str, str], words: str
) -> None:
    own = TEMPLATE.read_text().replace(*change)
    (desk.directory / "own.yaml").write_text(own, errors="surrogateescape")
    ended = desk.enrol(["x"], "--user-data", "own.yaml")
    assert ended.code == 1 and words in ended.errors
    assert not at(manager) and not desk.keys.exists()
