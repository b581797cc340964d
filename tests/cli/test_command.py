"""The command itself: its help, its version, ways to call it, and what it refuses."""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest
from gevent import subprocess

from agent import __version__
from agent.cli import command
from agent.config.settings import SETTINGS
from tests.support.command import LAUNCHER, MODULE, NO_MANAGER, Ended, run, run_program
from tests.support.faulty_manager import FaultyManager, Request, well
from tests.support.harness import PATIENCE, ROOT, environment, with_all_signals
from tests.support.sockets import MakeManager

pytestmark = pytest.mark.process

# A git tree adds its commit.
VERSION_LINE = rf"agent-run, version {re.escape(__version__)}(\+g[0-9a-f]+)?\n"


@pytest.mark.parametrize(("flag", "columns", "lines"), [("--help", 80, 50), ("-h", 100, 48)])
def test_the_help_fits_one_screen_and_names_every_variable(
    tmp_path: Path, flag: str, columns: int, lines: int
) -> None:
    ended = run(flag, cwd=tmp_path, COLUMNS=str(columns))
    assert ended.code == 0
    shown = ended.output.splitlines()
    assert max(map(len, shown)) <= columns
    assert len(shown) <= lines
    words = ended.output.split()
    for setting in SETTINGS:
        assert setting.variable in words
        assert f"{setting.group}:" in shown
    assert "AGENT_KEY" in ended.output
    options = [line for line in shown[shown.index("This run:") :] if line.startswith("  ")]
    if columns >= 100:
        assert all(line.lstrip().startswith("-") for line in options), "one line for each"


@pytest.mark.parametrize("program", [MODULE, LAUNCHER])
def test_python_runs_the_command_as_a_module_and_by_the_launcher(
    tmp_path: Path, program: tuple[str, ...]
) -> None:
    ended = run_program(sys.executable, *program, "--version", cwd=tmp_path)
    assert ended.code == 0
    assert re.fullmatch(VERSION_LINE, ended.output)


def test_an_installed_agent_run_is_the_same_command(tmp_path: Path) -> None:
    installed = shutil.which("agent-run", path=str(Path(sys.executable).parent))
    if installed is None:
        pytest.skip("the package is not installed here")
    ended = run_program(installed, "--version", cwd=tmp_path)
    assert ended.code == 0
    assert re.fullmatch(VERSION_LINE, ended.output)


# Only a status page, the demo and a check need these; an idle agent is smaller without them.
COSTLY = {
    *("agent.cli.check", "agent.status", "difflib", "dotenv", "flask", "gevent.pywsgi"),
    *("prometheus_client", "psutil"),
}


def test_the_command_imports_nothing_that_only_some_runs_need(tmp_path: Path) -> None:
    code = "import sys, agent.__main__, agent.cli.command; print(*sys.modules)"
    ended = run_program(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert ended.code == 0, ended.errors
    assert "agent.service.lifecycle" in ended.output.split()
    assert COSTLY.intersection(ended.output.split()) == set()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--nope"], "No such option"),
        (["extra"], "unexpected extra argument"),
        (["--max-tasks"], "requires an argument"),
        (["--manager-ur", "x"], "Did you mean"),
        (["--dev", "--check"], "--dev and --check cannot be used together"),
        (["--agent-key", "x"], "set the registration key with AGENT_KEY or AGENT_KEY_FILE"),
    ],
)
def test_a_command_line_that_click_refuses_exits_78(
    capfd: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert command.run(arguments) == 78
    output, errors = capfd.readouterr()
    assert says in errors and arguments[0] in errors
    assert output == ""


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "soon", ""])
def test_an_invalid_idle_time_exits_78(capfd: pytest.CaptureFixture[str], seconds: str) -> None:
    assert command.run(["--exit-after-idle", seconds]) == 78
    words = f"'--exit-after-idle': {seconds!r}: must be a number of seconds from 0 to 86400"
    assert words in capfd.readouterr().err


def test_a_fault_says_where_the_wrong_setting_was_given(tmp_path: Path) -> None:
    (tmp_path / "my.env").write_text(
        "# mine\n\n\nexport LOG_FORMAT=xml\nMAX_TASKS=7\nMAX_PARALLEL=-1\nAGENT_KEY=canary\n"
    )
    (tmp_path / "my.env").chmod(0o600)
    ended = run(
        *("--env-file", "my.env", "--max-tasks", "many"),
        cwd=tmp_path,
        CLAIM_INTERVAL="slow",
        MAX_PARALLEL="none",
    )
    assert (ended.code, ended.output) == (78, "")
    assert ended.errors.splitlines() == [
        "agent-run: LOG_FORMAT is 'xml' (my.env line 4): must be json or console",
        "agent-run: CLAIM_INTERVAL is 'slow' (in the environment): must be a number of seconds"
        " from 0.05 to 3600",
        "agent-run: MAX_TASKS is 'many' (--max-tasks): must be a whole number from 1 to 100000",
        "agent-run: MAX_PARALLEL is 'none' (in the environment): must be a whole number"
        " from 1 to 128",
    ]


def test_an_env_file_without_an_end_is_a_fault(tmp_path: Path) -> None:
    ended = run("--env-file", "/dev/zero", cwd=tmp_path)
    assert ended.code == 78
    assert "more than 1000000 characters" in ended.errors


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_an_env_file_that_is_found_and_is_no_file_is_a_fault(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """A pipe would be waited for. One that is asked for is read, as a shell's `<(...)` is one."""
    make(tmp_path / ".env")
    ended = run("--check", cwd=tmp_path, AGENT_KEY="key-1", MANAGER_URL=NO_MANAGER)
    assert ended.code == 78
    assert ".env: it is no regular file" in ended.errors
    ended = run("--check", "--env-file", "/dev/null", cwd=tmp_path, MANAGER_URL=NO_MANAGER)
    assert "AGENT_KEY is not set" in ended.output


def test_mistakes_in_the_env_file_are_reported_and_do_not_stop_the_agent(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "\nMANAGR_URL=http://canary\nmax_task=3\nAGENT_KEY=canary\nRegion=west\n=\n"
        "EDITOR=vi\nLOG_LEVL=\n"
    )
    ended = run("--check", cwd=tmp_path, MANAGER_URL="http://127.0.0.1:1", STATE_DIR=str(tmp_path))
    assert ended.code == 69
    assert [line[25:] for line in ended.output.splitlines() if line.startswith("warning")] == [
        ".env line 6 is ignored: it is not VARIABLE=value",
        ".env line 2: MANAGR_URL is ignored: did you mean MANAGER_URL?",
        ".env line 3: max_task is ignored: did you mean MAX_TASKS?",
        ".env has AGENT_KEY in it, and everybody can read it: chmod 0600 it",
    ]


@pytest.mark.parametrize("line", ["AGENT_KEY=canary", "# AGENT_KEY=canary"])
def test_a_key_that_only_its_owner_can_read_is_no_mistake(tmp_path: Path, line: str) -> None:
    file = tmp_path / ".env"
    file.write_text(f"{line}\n")
    file.chmod(0o644 if line.startswith("#") else 0o640)
    ended = run("--check", cwd=tmp_path, MANAGER_URL="http://127.0.0.1:1", STATE_DIR=str(tmp_path))
    assert "warning" not in ended.output + ended.errors


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make another user's file")
@pytest.mark.parametrize(("mode", "code"), [(0o1777, 78), (0o755, 69)])
def test_an_env_file_that_anybody_may_have_put_there_is_not_obeyed(
    tmp_path: Path, mode: int, code: int
) -> None:
    """In a checkout of one's own it is, as with `sudo make run`."""
    (tmp_path / ".env").write_text("MANAGER_URL=http://127.0.0.1:1\n")
    os.chown(tmp_path / ".env", 1234, 1234)
    tmp_path.chmod(mode)
    ended = run("--check", cwd=tmp_path, AGENT_KEY="canary", STATE_DIR=str(tmp_path / "state"))
    assert ended.code == code, ended.errors
    assert ("belongs to another user" in ended.errors) is (code == 78)


@pytest.mark.parametrize(
    ("shell", "words", "word", "found"),
    [
        ("bash", "agent-run --max-t", "--max-t", {"--max-tasks", "--max-test-seconds"}),
        ("zsh", "agent-run --max-t", "--max-t", {"--max-tasks", "--max-test-seconds"}),
        ("fish", "agent-run --max-t", "--max-t", {"--max-tasks", "--max-test-seconds"}),
        ("bash", "agent-run --log-level ", "", {"debug", "info", "warning", "error"}),
        ("zsh", "agent-run --log-level ", "", {"debug", "info", "warning", "error"}),
        ("fish", "agent-run --log-format c", "c", {"console"}),
    ],
)
def test_a_shell_completes_options_and_words(
    tmp_path: Path, shell: str, words: str, word: str, found: set[str]
) -> None:
    current = word if shell == "fish" else str(len(words.split(" ")) - 1)
    ended = run(
        cwd=tmp_path,
        _AGENT_RUN_COMPLETE=f"{shell}_complete",
        COMP_WORDS=words,
        COMP_CWORD=current,
    )
    assert (ended.code, ended.errors) == (0, "")
    assert {line for line in re.split(r"[\n,\t]", ended.output)} >= found
    assert "--dev" not in ended.output


def test_a_shell_completes_paths(tmp_path: Path) -> None:
    words = {"COMP_WORDS": "agent-run --log-file ", "COMP_CWORD": "2"}
    ended = run(cwd=tmp_path, _AGENT_RUN_COMPLETE="bash_complete", **words)
    assert ended.output.split(",")[0] == "file"


@pytest.mark.parametrize("argument", ["--help", "--check"])
def test_a_closed_pipe_on_stdout_causes_no_traceback(tmp_path: Path, argument: str) -> None:
    ended = unread(argument, cwd=tmp_path, AGENT_KEY="canary", STATE_DIR=str(tmp_path))
    assert (ended.code, ended.errors) == (1, "")


def test_a_demo_whose_stdout_is_closed_stops_without_an_error(tmp_path: Path) -> None:
    log_file = tmp_path / "agent.log"
    ended = unread("--dev", cwd=tmp_path, LOG_FILE=str(log_file), TMPDIR=str(tmp_path))
    assert ended.code == 0
    assert "Traceback" not in ended.errors and "Broken" not in ended.errors
    said = [json.loads(line) for line in log_file.read_text().splitlines()]
    assert [line["why"] for line in said if line["message"] == "agent stops"] == ["SIGPIPE"]


def unread(argument: str, cwd: Path, **variables: str) -> Ended:
    """Run the command with a stdout that nobody reads any more."""
    line = f"{{ {sys.executable} -m agent {argument}; echo $? >code; }} | true"
    ended = run_program("sh", "-c", line, cwd=cwd, **variables)
    return Ended(int((cwd / "code").read_text()), ended.output, ended.errors)


class Interrupted:
    """The command, for interrupting it before it handles signals itself."""

    def __init__(self, *arguments: str, cwd: Path, **variables: str) -> None:
        # What measures the coverage would import gevent before the command does.
        unmeasured = {n: v for n, v in environment(**variables).items() if "COV" not in n}
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            env=unmeasured,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=with_all_signals,
        )

    def line(self) -> str:
        """The next line it prints."""
        assert self._process.stdout
        with gevent.Timeout(PATIENCE):
            return str(self._process.stdout.readline())

    def wait_for(self, words: str) -> None:
        """Read until a line ends with these words; fails the test if none does."""
        while line := self.line():
            if line.rstrip().endswith(words):
                return
        raise AssertionError(f"it never said {words}")

    def interrupt(self) -> tuple[int | None, str]:
        """Press Ctrl-C; returns the exit code and the rest of the output."""
        self._process.send_signal(signal.SIGINT)
        try:
            output, _ = self._process.communicate(timeout=PATIENCE)
        finally:
            self._process.kill()
        return self._process.poll(), str(output)


@pytest.mark.parametrize(
    ("program", "module", "code"),
    [
        ((*MODULE, "--check"), "gevent", -signal.SIGINT),
        ((*MODULE, "--check"), "structlog", -signal.SIGINT),
        ((*MODULE, "--dev"), "flask", 128 + signal.SIGINT),
        (("-m", "agent.dev"), "gevent", -signal.SIGINT),
        (("-m", "agent.dev"), "flask", -signal.SIGINT),
    ],
)
def test_ctrl_c_during_an_import_ends_the_process_silently(
    tmp_path: Path, program: tuple[str, ...], module: str, code: int
) -> None:
    slow = "import signal\nprint('loading', flush=True)\nsignal.pause()\n"
    (tmp_path / f"{module}.py").write_text(slow)
    command = Interrupted(*program, cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert command.line() == "loading\n"
    ended, output = command.interrupt()
    # click prints a line break after the ^C of a terminal.
    assert (ended, output.strip()) == (code, "")


# In the order in which they are loaded.
@pytest.mark.parametrize(
    ("program", "module"),
    [
        (MODULE, "gevent._config"),
        (LAUNCHER, "ctypes"),
        (MODULE, "structlog"),
        (LAUNCHER, "agent.cli.command"),
        (MODULE, "flask"),
        (LAUNCHER, "agent.dev.server"),
    ],
)
def test_an_early_ctrl_c_prints_no_traceback(
    tmp_path: Path, program: tuple[str, ...], module: str
) -> None:
    told = ("-X", "importtime", *program, "--dev")
    command = Interrupted(*told, cwd=tmp_path, TMPDIR=str(tmp_path))
    command.wait_for(f" {module}")
    code, output = command.interrupt()
    # It is killed, or unwound, or, on a fast host, already working and stopped by the signal.
    assert code in (-signal.SIGINT, 128 + signal.SIGINT, 0)
    assert "Traceback" not in output and "KeyboardInterrupt" not in output


def test_ctrl_c_during_a_check_exits_130_without_a_traceback(
    faulty: MakeManager, tmp_path: Path
) -> None:
    def hang(request: Request) -> bytes:
        gevent.sleep(PATIENCE)
        return well(request)

    manager: FaultyManager = faulty(hang)
    state = str(tmp_path / "state")
    settings = {"MANAGER_URL": manager.url, "AGENT_KEY": "canary", "STATE_DIR": state}
    command = Interrupted(*MODULE, "--check", cwd=tmp_path, **settings)
    manager.wait_for(lambda: manager.requests)
    code, output = command.interrupt()
    assert code == 130
    assert "Traceback" not in output and "KeyboardInterrupt" not in output


def test_the_log_does_not_go_to_another_file_if_stdout_is_closed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    line = f"exec {sys.executable} -m agent >&-"
    settings = {"AGENT_KEY": "canary", "MANAGER_URL": "http://127.0.0.1:1"}
    ended = run_program(
        *("sh", "-c", line), cwd=tmp_path, STATE_DIR=str(state), REGISTER_TIMEOUT="1", **settings
    )
    assert ended.code == 69, ended
    assert re.fullmatch(r"[0-9]+ agent1\n", (state / "lock").read_text())
