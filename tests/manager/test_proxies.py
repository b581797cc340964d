"""The proxy between the agent and the Manager: who resolves names, and which address is told."""

import os
from pathlib import Path

import pytest

from agent.manager.proxy import proxy_of
from tests.support.harness import Bench
from tests.support.lone_agent import lone_agent
from tests.support.proxy import proxy

pytestmark = pytest.mark.process

MANAGER = "http://manager.invalid:8000"
VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def fixture_no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine's own proxy have no say."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


def test_a_managers_name_is_the_proxys_to_resolve(bench: Bench, tmp_path: Path) -> None:
    with proxy(bench.manager.url) as way:
        with lone_agent(MANAGER, tmp_path, "--exit-after-idle", "0.5", HTTP_PROXY=way.url) as agent:
            assert agent.exit_code() == 0
            agent.wait_for("registered", address="127.0.0.1")
            said = agent.wait_for("other hosts cannot reach this address", address="127.0.0.1")
    assert "ADVERTISE_ADDRESS" in said["advice"]
    assert set(way.asked) == {"manager.invalid:8000"}
    assert bench.store.agents.get(1).last_heartbeat


def test_an_address_that_is_set_needs_no_advice(bench: Bench, tmp_path: Path) -> None:
    given = {"ADVERTISE_ADDRESS": "192.0.2.7"}
    with proxy(bench.manager.url) as way:
        idle = ("--exit-after-idle", "0")
        with lone_agent(MANAGER, tmp_path, *idle, HTTP_PROXY=way.url, **given) as agent:
            assert agent.exit_code() == 0
    agent.wait_for("registered", address="192.0.2.7")
    assert "ADVERTISE_ADDRESS" not in str([line for line in agent.lines if "advice" in line])


@pytest.mark.parametrize(
    ("url", "exempt", "used"),
    [
        ("http://manager.example:8000", "", True),
        ("http://manager.example:8000", "example", False),
        ("http://manager.example:8000", ".example,10.0.0.0/8", False),
        ("http://manager.example:8000", "manager.example:8000", False),
        ("http://manager.example:8000", "manager.example:8001", True),
        ("http://manager.example:8000", "ger.example", True),
        ("http://manager.example:8000", "*", False),
        ("http://10.1.2.3:8000", "192.0.2.0/24, 10.0.0.0/8", False),
        ("http://10.1.2.3:8000", "10.1.2.3", False),
        ("http://10.1.2.3:8000", "11.0.0.0/8", True),
        ("http://[fd00::1]:8000", "fd00::1", False),
        ("http://[fd00::1]:8000", "[fd00::1]", False),
        ("http://[fd00::1]:8000", "fd00::/8", False),
        ("http://[fd00::1]:8000", "fe80::/10", True),
        ("http://[fe80::1%25eth0]:8000", "fe80::/10", False),
        ("http://localhost:8000", "", False),
    ],
)
def test_no_proxy_is_honoured(
    monkeypatch: pytest.MonkeyPatch, url: str, exempt: str, used: bool
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", exempt)
    assert proxy_of(url) == ("http://proxy.example:3128" if used else "")
    monkeypatch.setenv("no_proxy", os.environ.pop("NO_PROXY"))
    assert bool(proxy_of(url)) == used


@pytest.mark.parametrize(
    ("url", "variable", "used"),
    [
        ("http://manager.example", "HTTP_PROXY", True),
        ("http://manager.example", "http_proxy", True),
        ("http://manager.example", "HTTPS_PROXY", False),
        ("https://manager.example", "HTTPS_PROXY", True),
        ("https://manager.example", "HTTP_PROXY", False),
        ("https://manager.example", "ALL_PROXY", True),
    ],
)
def test_each_kind_of_url_has_a_variable(
    monkeypatch: pytest.MonkeyPatch, url: str, variable: str, used: bool
) -> None:
    monkeypatch.setenv(variable, "https://proxy.example")
    assert proxy_of(url) == ("https://proxy.example" if used else "")


@pytest.mark.parametrize(
    "value",
    [
        "socks5h://user:pass@proxy.example:1080",
        "http://user:pass@",
        "http://user:pa#pass@proxy.example",
        "http://user:pass@proxy.example:port",
        "http://user:pass@proxy.example:0",
        "http://[user:pass@proxy.example",
        "http://user:pa/pass@proxy.example",
    ],
)
def test_what_is_no_url_of_an_http_proxy_is_refused_and_its_password_not_told(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", value)
    with pytest.raises(OSError, match="must be like http://proxy.example:3128") as raised:
        proxy_of(MANAGER)
    assert "pass" not in str(raised.value)
