"""The limits of the host: targets, time, streams, bitrate, cores."""

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
from gevent.event import Event

from agent.config.settings import Config, read_settings
from agent.config.types import NETWORKS, Network
from agent.errors import TaskError
from agent.iperf3.features import Features
from agent.protocol import ClientPayload
from agent.tasks import policy
from agent.tasks.policy import check_burst, check_core, checked_target, within_limits
from tests.support.harness import Bench, free_port, hub_gaps

CORES = os.cpu_count() or 1


def host(**settings: str) -> Config:
    """The configuration of a host with these limits."""
    return read_settings(settings, {"AGENT_KEY": "key-1"})


def payload(**keys: Any) -> ClientPayload:
    """A client payload of these keys."""
    return ClientPayload(server_ip="10.0.0.1", port=5200, **keys)


def allowed(text: str) -> tuple[Network, ...]:
    """The networks that this ALLOWED_TARGETS lists."""
    read: tuple[Network, ...] = NETWORKS.parse(text)
    return read


def refused(error: pytest.ExceptionInfo[TaskError]) -> tuple[str, str]:
    """The class and the message of a refusal."""
    return error.value.error_class, str(error.value)


@pytest.mark.parametrize(
    ("settings", "keys", "message"),
    [
        (
            {"max_test_seconds": "60"},
            {"time": 61},
            "time 61 is over this agent's MAX_TEST_SECONDS of 60",
        ),
        (
            {"max_parallel": "4"},
            {"parallel": 5},
            "parallel 5 is over this agent's MAX_PARALLEL of 4",
        ),
        (
            {"max_bitrate": "10M"},
            {"parallel": 2, "bitrate": 5_000_001},
            "bitrate x streams 10000002 is over this agent's MAX_BITRATE of 10000000",
        ),
        (
            {"max_test_seconds": "60"},
            {"time": 60, "omit": 1},
            "time + omit 61 is over this agent's MAX_TEST_SECONDS of 60",
        ),
        (
            {"max_bitrate": "10M"},
            {"bitrate": 5_000_001, "bidir": True},
            "bitrate x streams 10000002 is over this agent's MAX_BITRATE of 10000000",
        ),
    ],
)
def test_a_refusal_names_the_limit_and_the_value_over_it(
    settings: dict[str, str], keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(TaskError) as raised:
        within_limits(payload(**keys), host(**settings))
    assert refused(raised) == ("not_allowed", message)


@pytest.mark.parametrize(
    ("settings", "keys", "bitrate"),
    [
        ({}, {}, None),
        ({}, {"udp": True, "bitrate": 0}, 0),
        ({"max_bitrate": "10M"}, {}, 10_000_000),
        ({"max_bitrate": "10M"}, {"bitrate": 0, "parallel": 3}, 3_333_333),
        ({"max_bitrate": "10M"}, {"bitrate": 5_000_000, "parallel": 2}, 5_000_000),
        ({"max_bitrate": "2"}, {"parallel": 128}, 1),
        ({"max_bitrate": "10M"}, {"bidir": True, "parallel": 2}, 2_500_000),
        ({"max_test_seconds": "60"}, {"time": 60}, None),
        ({"max_test_seconds": "60"}, {"time": 50, "omit": 10}, None),
    ],
)
def test_a_test_within_the_limits_gets_its_share_of_the_bitrate(
    settings: dict[str, str], keys: dict[str, Any], bitrate: int | None
) -> None:
    assert within_limits(payload(**keys), host(**settings)).bitrate == bitrate


@pytest.mark.parametrize("version", ["3.9", "3.9+", "3.18"])
@pytest.mark.parametrize(
    ("settings", "error_class"), [({"max_bitrate": "10M"}, "not_allowed"), ({}, "unsupported")]
)
def test_a_burst_is_refused_where_this_iperf3_would_not_pace_it(
    version: str, settings: dict[str, str], error_class: str
) -> None:
    burst = payload(burst=10, bitrate=10**6)
    with pytest.raises(TaskError) as raised:
        check_burst(burst, Features("/iperf3", version, {}), host(**settings))
    assert refused(raised)[0] == error_class
    assert f"iperf3 {version} keeps to no bitrate in a test with a burst" in refused(raised)[1]


@pytest.mark.parametrize(
    ("version", "keys"),
    [
        ("3.12", {"burst": 10}),
        ("3.19.1", {"burst": 10}),
        ("3.18", {}),
        # The server's iperf3 sends, and may be another one.
        ("3.18", {"burst": 10, "reverse": True}),
    ],
)
def test_a_burst_that_is_paced_is_allowed(version: str, keys: dict[str, Any]) -> None:
    features = Features("/iperf3", version, {})
    check_burst(payload(bitrate=10**6, **keys), features, host(max_bitrate="10M"))


@pytest.mark.parametrize(
    ("target", "ip_version", "targets", "address"),
    [
        ("10.1.2.3", None, "10.0.0.0/8", "10.1.2.3"),
        ("10.1.2.3", 4, "10.1.2.3", "10.1.2.3"),
        ("localhost", 4, "127.0.0.0/8", "127.0.0.1"),
        ("::1", 6, "fd00::/8,::1", "::1"),
        ("::ffff:10.1.2.3", None, "10.0.0.0/8", "::ffff:10.1.2.3"),
        ("fe80::1%lo", None, "fe80::/10", "fe80::1%lo"),
        ("fe80::1%1", 6, "10.0.0.0/8,fe80::/10", "fe80::1%lo"),
        # Unusual ways to write an address: iperf3 gets the address that was checked.
        ("2130706433", None, "127.0.0.0/8", "127.0.0.1"),
        ("127.1", None, "127.0.0.0/8", "127.0.0.1"),
    ],
)
def test_an_allowed_target_becomes_the_address_that_was_checked(
    target: str, ip_version: int | None, targets: str, address: str
) -> None:
    assert checked_target(target, ip_version, allowed(targets), Event()) == address


def test_a_name_stays_a_name_when_every_target_is_allowed() -> None:
    assert checked_target("no-such-host.invalid", None, None, Event()) == "no-such-host.invalid"


@pytest.mark.parametrize(
    ("target", "targets"),
    [
        ("10.1.2.3", "192.168.0.0/16"),
        ("localhost", "10.0.0.0/8"),
        ("::1", "127.0.0.0/8"),
        ("127.0.0.1", "::/0"),
        ("::ffff:192.0.2.1", "10.0.0.0/8,::/0"),
        ("fe80::1%lo", "fd00::/8"),
        ("fe80::1%lo", "fe80::2"),
        ("0x7f.1", "10.0.0.0/8"),
    ],
)
def test_a_target_outside_the_allowed_networks_is_refused(target: str, targets: str) -> None:
    with pytest.raises(TaskError) as raised:
        checked_target(target, None, allowed(targets), Event())
    error_class, message = refused(raised)
    assert error_class == "not_allowed"
    assert message.startswith(f"{target} is outside this agent's ALLOWED_TARGETS (")


@pytest.mark.parametrize(
    ("target", "ip_version"),
    [
        ("127.0.0.1", 6),
        ("::1", 4),
        ("fe80::1%no-such-device", None),
        # Zones of devices that are not there: the resolver takes them as they are.
        ("::1%99999", None),
        ("fe80::1%99999", 6),
        ("ff02::1%99999", None),
        ("::ffff:127.0.0.1%99999", None),
        ("fe80::1%4294967295", None),
        # Zones that the resolver refuses.
        ("::1%lo", None),
        ("fe80::1%4294967296", None),
        ("fe80::1%-1", None),
        (f"fe80::1%{'a' * 200}", None),
    ],
)
def test_a_target_without_an_address_of_that_family_is_an_unknown_host(
    target: str, ip_version: int | None
) -> None:
    with pytest.raises(TaskError) as raised:
        checked_target(target, ip_version, allowed("0.0.0.0/0,::/0"), Event())
    error_class, message = refused(raised)
    assert error_class == "unknown_host"
    assert message.startswith(f"{target}: ")


def resolved(*answers: list[str]) -> Callable[..., list[Any]]:
    """A resolver that gives these answers in turn, and fails the test after the last."""
    left = list(answers)

    def getaddrinfo(host: str, port: None, family: int, kind: int) -> list[Any]:
        infos = []
        for text in left.pop(0):
            address, _, zone = text.partition("%")
            six = (address, 0, 0, socket.if_nametoindex(zone) if zone else 0)
            infos.append((0, kind, 0, "", six if ":" in address else (address, 0)))
        return infos

    return getaddrinfo


@pytest.mark.parametrize(
    ("answer", "address"),
    [
        (["192.0.2.1", "10.0.0.1"], "10.0.0.1"),
        (["2001:db8::1", "::ffff:10.0.0.2"], "::ffff:10.0.0.2"),
        (["fe80::1", "fe80::2%lo"], "fe80::2%lo"),
    ],
)
def test_the_first_allowed_address_of_a_name_is_taken(
    monkeypatch: pytest.MonkeyPatch, answer: list[str], address: str
) -> None:
    monkeypatch.setattr(policy, "_getaddrinfo", resolved(answer))
    assert checked_target("host.example", None, allowed("10.0.0.0/8,fe80::2"), Event()) == address


def test_a_name_with_thousands_of_addresses_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = [f"192.0.{number // 256}.{number % 256}" for number in range(6000)]
    monkeypatch.setattr(policy, "_getaddrinfo", resolved(many))
    networks = allowed(",".join(f"10.0.{number}.0/24" for number in range(100)))
    with hub_gaps() as gaps, pytest.raises(TaskError, match="outside this agent's ALLOWED_TARGETS"):
        checked_target("host.example", None, networks, Event())
    assert len(gaps) > 5 and max(gaps) < sum(gaps) * 0.8


def test_a_name_is_resolved_once_and_a_later_answer_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(policy, "_getaddrinfo", resolved(["10.0.0.1"], ["192.0.2.1"]))
    assert checked_target("host.example", None, allowed("10.0.0.0/8"), Event()) == "10.0.0.1"
    with pytest.raises(TaskError, match="outside this agent's ALLOWED_TARGETS"):
        checked_target("host.example", None, allowed("10.0.0.0/8"), Event())


def test_iperf3_gets_the_address_that_was_checked(bench: Bench) -> None:
    bench.agent(ALLOWED_TARGETS="127.0.0.0/8").wait_for("registered")
    payload: dict[str, Any] = {"server_ip": "localhost", "port": 1, "max_retries": 0}
    task = bench.ended(bench.task("iperf_client_run", number=1, **payload))
    argv = bench.result(task)["agent"]["argv"]
    assert argv[1:3] == ["-c", "127.0.0.1"] and "localhost" not in argv


@pytest.mark.parametrize(
    ("networks", "of_targets"),
    # Of an address that is not looked up, iperf3 says what the kernel says.
    [("::/0", {"unknown_host"}), ("", {"arguments", "unreachable"})],
    ids=["checked", "unchecked"],
)
def test_a_device_that_is_not_there_fails_its_task_and_is_no_bug(
    bench: Bench, networks: str, of_targets: set[str]
) -> None:
    agent = bench.agent(ALLOWED_TARGETS=networks)
    zones = ["::1%99999", "fe80::1%99999", "::1%no-such", "fe80::1%no-such"]
    devices: list[dict[str, Any]] = [*({"bind": zone} for zone in zones), {"bind_dev": "no-such"}]
    to_here: dict[str, Any] = {"server_ip": "::1", "port": 1, "max_retries": 0}
    targets = [bench.task("iperf_client_run", **to_here | {"server_ip": zone}) for zone in zones]
    others = [bench.task("iperf_client_run", **to_here, **device) for device in devices]
    others += [bench.task("iperf_server_start", port=free_port(), **device) for device in devices]
    for task in [*targets, *others]:
        assert bench.ended(task).status == "failed", task.payload
        told = bench.result(task)["agent"]["error_class"]
        assert told in (of_targets if task in targets else {"arguments"}), task
    assert not [line for line in agent.lines if "exception" in line]


@pytest.mark.parametrize("affinity", [None, 0, CORES - 1, "0", f"{CORES - 1},999"])
def test_a_core_of_this_host_may_be_used(affinity: int | str | None) -> None:
    check_core(affinity)


@pytest.mark.parametrize("affinity", [CORES, str(CORES), f"{CORES},0"])
def test_a_core_that_this_host_lacks_is_refused(affinity: int | str) -> None:
    with pytest.raises(TaskError) as raised:
        check_core(affinity)
    words = f"affinity {affinity}: this host has the cores 0 to {CORES - 1}"
    assert refused(raised) == ("arguments", words)
