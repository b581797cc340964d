"""The two systemd units. systemd cannot derive one from the other, so a test compares them."""

import pytest

from tests.support.deployment_files import DEPLOYMENT

# Where the unit for several agents differs from the unit for one.
NAMES = {
    "Description=Iperf Orchestrator Agent %i": "Description=Iperf Orchestrator Agent",
    "Environment=AGENT_NAME=%i": "Environment=STATUS_ADDRESS=127.0.0.1:9201",
    "/etc/iperf-agent/%i.": "/etc/iperf-agent/agent.",
    "Directory=iperf-agent-%i": "Directory=iperf-agent",
}


def lines(unit: str) -> list[str]:
    """The lines of a unit, without comments."""
    text = (DEPLOYMENT / unit).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_unit_for_one_agent_matches_that_for_several() -> None:
    several = "\n".join(lines("iperf-agent@.service"))
    for its, the_only_ones in NAMES.items():
        assert its in several
        several = several.replace(its, the_only_ones)
    assert several.splitlines() == lines("iperf-agent.service")


@pytest.mark.parametrize("directory", ["State", "Logs"])
def test_no_directory_of_an_agent_is_inside_that_of_another(directory: str) -> None:
    # systemd would give the inner directory to the user of the outer one.
    (path,) = [line for line in lines("iperf-agent@.service") if f"{directory}Directory=" in line]
    assert "/" not in path
