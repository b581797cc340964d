"""A Manager that goes away, loses answers or cancels tasks."""

import json
from pathlib import Path

from agent.dev.server import DevManager
from tests.support.faulty_manager import Request
from tests.support.harness import Bench, free_port, is_running
from tests.support.lone_agent import lone_agent, passed_on
from tests.support.sockets import MakeManager


def test_a_test_goes_on_without_the_manager_and_is_reported_when_it_is_back(bench: Bench) -> None:
    agent = bench.agent(HEARTBEAT_INTERVAL="0.2")
    port = free_port()
    bench.ended(bench.task("iperf_server_start", port=port))
    client = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=2)
    bench.wait(lambda: client.status == "running")
    address = bench.manager.port
    bench.manager.stop()
    agent.wait_for("client ended", exit_code=0)
    agent.wait_for("not delivered yet")
    agent.wait_for("no heartbeat; tests go on")
    assert client.status == "running"
    bench.manager = DevManager(bench.store, "127.0.0.1", address)
    bench.manager.start()
    assert bench.ended(client).status == "succeeded", client.error
    assert bench.result(client)["end"]["sum_sent"]["bytes"] > 0
    agent.wait_for("the Manager is back")
    assert "task_id" not in agent.wait_for("results are delivered again")
    assert bench.ended(bench.task("kill_all")).status == "succeeded", "claims go on too"


def test_a_claim_whose_answer_was_lost_loses_no_task(
    bench: Bench, faulty: MakeManager, tmp_path: Path
) -> None:
    lost: list[str] = []

    def lose_the_first_task(request: Request) -> bytes:
        answer = passed_on(request, bench.manager.url)
        if request.call == "claim" and b'"type"' in answer and not lost:
            lost.append(request.headers["idempotency-key"])
            return b""
        return answer

    manager = faulty(lose_the_first_task)
    with lone_agent(manager.url, tmp_path) as agent:
        agent.wait_for("registered")
        first, second = bench.task("kill_all"), bench.task("kill_all")
        assert bench.ended(first).status == bench.ended(second).status == "succeeded"
        agent.wait_for("no claim")
    claims = [request.headers["idempotency-key"] for request in manager.requests]
    assert claims.count(lost[0]) >= 2
    results = [request.path for request in manager.requests if request.call == "result"]
    assert sorted(results) == [f"/v1/agent/tasks/{task.id}/result" for task in (first, second)]


def test_a_result_whose_answer_was_lost_is_reported_once(
    bench: Bench, faulty: MakeManager, tmp_path: Path
) -> None:
    def lose_the_first_result(request: Request) -> bytes:
        answer = passed_on(request, bench.manager.url)
        return b"" if request.call == "result" and len(results()) == 1 else answer

    def results() -> list[Request]:
        return [request for request in manager.requests if request.call == "result"]

    manager = faulty(lambda request: lose_the_first_result(request))
    with lone_agent(manager.url, tmp_path) as agent:
        task = bench.task("kill_all")
        agent.wait_for("not delivered yet", task_id=task.id)
        agent.wait_for("the Manager has it already", task_id=task.id)
        assert task.status == "succeeded"
    first, second = results()
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert json.loads(first.body) == json.loads(second.body)


def test_a_canceled_task_is_stopped_with_the_next_heartbeat(bench: Bench) -> None:
    agent = bench.agent(HEARTBEAT_INTERVAL="0.2")
    port = free_port()
    server = bench.ended(bench.task("iperf_server_start", port=port))
    client = bench.task("iperf_client_run", server_ip="127.0.0.1", port=port, time=60)
    pid = agent.wait_for("client started", task_id=client.id)["pid"]
    bench.store.tasks.cancel(client.id)
    agent.wait_for("client ended", task_id=client.id)
    agent.wait_for("the task was canceled at the Manager", task_id=client.id)
    assert not is_running(pid)
    assert is_running(bench.result(server)["pid"]), "the others go on"
