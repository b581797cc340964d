"""What an iperf3 says of itself is read, and what is not a usable iperf3 is refused."""

import pytest

from agent.errors import TaskError
from agent.iperf3.features import parse_features
from tests.iperf3.test_failures import LOADER
from tests.support.recorded_runs import DATA, VERSIONS, features

HELP = (DATA / "3.12" / "help.txt").read_text()
SINCE_3_10 = {"--bind-dev", "--dont-fragment"}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_version_and_the_options_of_a_real_iperf3_are_read(version: str) -> None:
    read = features(version)
    assert read.version == version
    assert read.path == "/usr/bin/iperf3"
    assert {"--bidir", "--dscp", "--udp-counters-64bit", "--version4"} <= read.options.keys()
    assert SINCE_3_10 & read.options.keys() == (SINCE_3_10 if read.release >= (3, 10) else set())
    assert (read.options["--bidir"], read.options["--client"]) == ("--bidir", "-c")
    assert ("--json-stream" in read.options) == (read.release >= (3, 17))


@pytest.mark.parametrize(
    ("text", "version", "release"),
    [
        ("iperf 3.12 (cJSON 1.7.15)\nLinux host", "3.12", (3, 12)),
        ("iperf 3.19.1 (cJSON 1.7.15)", "3.19.1", (3, 19, 1)),
        ("iperf 3.9+ (cJSON 1.7.13)", "3.9+", (3, 9)),
        ("iperf 3.16-mt1", "3.16-mt1", (3, 16)),
        ("iperf 3.17.x-dev2", "3.17.x-dev2", (3, 17)),
    ],
)
def test_the_version_is_kept_as_printed_and_compared_as_numbers(
    text: str, version: str, release: tuple[int, ...]
) -> None:
    read = parse_features("/opt/iperf3", text, HELP)
    assert (read.version, read.release) == (version, release)


def test_what_the_loader_writes_before_it_means_nothing() -> None:
    """It is on stderr, which `--version` and `--help` have in common with stdout here."""
    read = parse_features("/opt/iperf3", LOADER + "iperf 3.12 (cJSON 1.7.15)", LOADER + HELP)
    assert read.version == "3.12" and "--bidir" in read.options
    with pytest.raises(TaskError, match="says 'iperf version 2.1.8"):
        parse_features("/bin/x", LOADER + "iperf version 2.1.8 (12 August 2022)", HELP)


@pytest.mark.parametrize(
    ("version", "sound"), [("3.19", False), ("3.19+", False), ("3.19.1", True), ("3.20", True)]
)
def test_an_option_that_was_unsound_at_first_is_as_good_as_missing(
    version: str, sound: bool
) -> None:
    text = (DATA / "3.22" / "help.txt").read_text()
    options = parse_features("/opt/iperf3", f"iperf {version} (cJSON 1.7.15)", text).options
    assert ("--skip-rx-copy" in options, "--mptcp" in options) == (sound, True)


@pytest.mark.parametrize(
    "text",
    ["", "iperf version 2.1.8 (12 August 2022) pthreads", "iperf 2.0", "GNU bash 5.2", "\0"],
)
def test_the_message_about_another_program_says_what_to_do(text: str) -> None:
    with pytest.raises(TaskError, match="/bin/x is not iperf3.*install iperf3") as raised:
        parse_features("/bin/x", text, HELP)
    assert raised.value.error_class == "iperf3_missing"


def test_an_iperf3_without_a_needed_option_is_refused() -> None:
    old = HELP.replace("--connect-timeout", "--nothing-of-that-kind")
    with pytest.raises(
        TaskError, match="3.1 at /bin/x has no --connect-timeout; install"
    ) as raised:
        parse_features("/bin/x", "iperf 3.1 (cJSON 1.5)", old)
    assert raised.value.error_class == "iperf3_missing"


def test_an_option_in_a_description_does_not_count() -> None:
    without = HELP.replace("  --bind-dev <dev>          bind", "  --else <dev>          bind")
    assert "equivalent to `--bind-dev" in without
    assert "--bind-dev" not in parse_features("/bin/x", "iperf 3.12", without).options
