"""Two hosts that report with one agent's name and key, as the dev Manager sees them."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from agent.dev.store.agents import KEPT, OFFLINE_AFTER, Instances
from agent.dev.store.records import utc_now
from agent.dev.store.store import Store
from tests.support.dev_client import Api

NOW = utc_now()
# Seconds between two heartbeats.
BEAT = 5


def heard(*beats: tuple[float, str]) -> Instances:
    """What is known after heartbeats of such instances, so many seconds from the first."""
    instances = Instances()
    for seconds, name in beats:
        instances.record(name, f"at-{name}", NOW + timedelta(seconds=seconds))
    return instances


def in_turn(names: Sequence[str], rounds: int = 2) -> list[tuple[float, str]]:
    """Heartbeats of these instances in turn."""
    step = BEAT / len(names)
    return [(step * number, name) for number, name in enumerate([*names] * rounds)]


def test_an_instance_alone_has_no_others() -> None:
    instances = heard(*in_turn("a", 5))
    assert (instances.others("a"), instances.addresses()) == ([], [])


def test_an_instance_that_follows_another_is_a_restart() -> None:
    instances = heard((0, "a"), (5, "a"), (5.1, "b"), (10.1, "b"), (15.1, "c"))
    assert (instances.others("c"), instances.addresses()) == ([], [])


def test_an_instance_that_comes_back_after_another_is_a_second_host() -> None:
    instances = heard((0, "a"), (2, "b"), (5, "a"))
    assert (instances.others("a"), instances.others("b")) == (["at-b"], ["at-a"])
    assert instances.addresses() == ["at-a", "at-b"]


def test_two_are_told_while_a_third_begins() -> None:
    instances = heard(*in_turn("ab"), (10, "c"))
    assert (instances.others("c"), instances.addresses()) == ([], ["at-a", "at-b"])


def test_an_instance_is_forgotten_when_it_would_be_offline() -> None:
    beats = [*in_turn("ab"), *((second, "a") for second in (10, 15, 20))]
    last = max(seconds for seconds, name in beats if name == "b")
    silent = last + OFFLINE_AFTER.total_seconds()
    assert heard(*beats, (silent, "a")).others("a") == ["at-b"]
    assert heard(*beats, (silent + 0.1, "a")).others("a") == []


def test_whoever_makes_up_instances_makes_the_manager_keep_few() -> None:
    many = [f"{number}" for number in range(1000)]
    assert len(heard(*in_turn(many)).addresses()) <= KEPT


def beat(api: Api, instance: str | None, address: str) -> object:
    """What a heartbeat of that instance is answered."""
    body = {"ip_address": address, "running": []}
    answer: object = api.agent("heartbeat", body, X_Agent_Instance=instance).json()
    return answer


@pytest.mark.parametrize("second", ["two", None])
def test_each_is_told_the_others_address_and_the_record_has_both(
    api: Api, store: Store, second: str | None
) -> None:
    """An older agent sends no instance, but can be told from one that does."""
    alone = {"pull_tasks": True}
    assert [beat(api, "one", "10.0.0.1"), beat(api, second, "10.0.0.2")] == [alone, alone]
    assert beat(api, "one", "10.0.0.1") == {**alone, "other_instance": "10.0.0.2"}
    assert beat(api, second, "10.0.0.2") == {**alone, "other_instance": "10.0.0.1"}
    api.login()
    assert api.call("GET", "agents/1").json()["taking_turns"] == ["10.0.0.1", "10.0.0.2"]
    store.agents.mark_offline(utc_now() + OFFLINE_AFTER + timedelta(seconds=1))
    assert "taking_turns" not in api.call("GET", "agents/1").json()


def test_two_agents_of_two_names_are_no_clones(api: Api) -> None:
    for _ in range(2):
        assert beat(api, "one", "10.0.0.1") == {"pull_tasks": True}
        body = {"ip_address": "10.0.0.2", "running": []}
        answer = api.agent(
            "heartbeat", body, X_AGENT_NAME="a2", X_AGENT_KEY="key-2", X_Agent_Instance="two"
        )
        assert answer.json() == {"pull_tasks": True}
