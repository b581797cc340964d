"""The main job: an agent process runs the Manager's tasks with real iperf3 children."""

import signal
from typing import Any

import gevent

from tests.support.harness import Bench, free_port, is_running


def test_a_tcp_test_between_two_agents_is_measured_and_reported(bench: Bench) -> None:
    for number in (1, 2):
        bench.agent(number=number).wait_for("registered")
    exercise = bench.store.exercises.create("tcp", 1)
    test = bench.store.exercises.add_test(
        exercise.id,
        1,
        2,
        free_port(),
        parallel=2,
        options={"client_delay_seconds": 0.3},
    )
    bench.store.exercises.start(exercise.id)
    client, server = bench.ended(test.client_task), test.server_task
    assert client.status == "succeeded", client.error
    result = bench.result(client)
    assert result["end"]["sum_received"]["bits_per_second"] > 0
    assert len(result["intervals"][0]["streams"]) == 2
    assert result["agent"]["attempts"] == 1
    assert result["agent"]["argv"][1:3] == ["-c", "127.0.0.1"]
    bench.wait(lambda: b'"ended"' in bytes(server.result))
    assert server.status == "succeeded"
    served = bench.result(server)
    assert served["agent"]["ended"] == "stopped by kill_all"
    # Only what a person has ended says so.
    assert served["agent"]["stopped"] is True and "stopped" not in result["agent"]
    assert served["start"]["accepted_connection"]["host"]
    kills = bench.store.tasks.find(type="kill_all")
    assert [bench.result(bench.ended(kill))["count"] for kill in kills] == [0, 1]


def test_a_drain_stops_the_children_and_delivers_their_results(bench: Bench) -> None:
    agent = bench.agent()
    port = free_port()
    server = bench.ended(bench.task("iperf_server_start", port=port))
    given: dict[str, Any] = {"server_ip": "127.0.0.1", "port": port, "time": 60, "interval": 0.1}
    client = bench.task("iperf_client_run", **given)
    bench.wait(lambda: client.status == "running")
    gevent.sleep(0.5)
    pids = [row.pid for row in bench.running[1]] or [bench.result(server)["pid"]]
    agent.signal(signal.SIGTERM)
    assert agent.exit_code() == 0
    assert not any(is_running(pid) for pid in pids)
    assert client.status == "failed"
    assert bench.result(client)["agent"]["error_class"] == "interrupted"
    assert bench.result(client)["intervals"], "the partial document is kept"
    assert bench.result(server)["agent"]["ended"] == "the agent was stopped (SIGTERM)"
    assert not any("stopped" in bench.result(task)["agent"] for task in (client, server))
