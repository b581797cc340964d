"""The smallest agent that could be: what claims, children and reports cost by themselves.

    python -m benchmarks.smallest URL

It claims as agent a1 until no task is left, starts a server for each, and says at once that it
listens, without checking. It keeps nothing on a disk, watches over nothing, and retries nothing.
It ends its servers once its stdin is closed.
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402
from typing import Any  # noqa: E402

import requests  # noqa: E402
from gevent import subprocess  # noqa: E402
from gevent.pool import Group  # noqa: E402
from requests.adapters import HTTPAdapter  # noqa: E402

# Four for reports, and one for claims.
CONNECTIONS = 5
HEADERS = {"X-AGENT-NAME": "a1", "X-AGENT-KEY": "key-1", "X-API-Version": "1"}
NULL = subprocess.DEVNULL  # type: ignore[attr-defined]


class Smallest:
    """Its session, and its children."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.update(HEADERS)
        self._session.mount("http://", HTTPAdapter(pool_maxsize=CONNECTIONS, pool_block=True))
        self._children: list[Any] = []

    def run(self) -> None:
        """Claim, start and report until nothing is pending."""
        self._call("register", {"ip_address": "127.0.0.1", "operating_system": "none"})
        running = Group()
        while task := self._call("tasks/claim", {})["task"]:
            running.spawn(self._server, task)
        running.join(raise_error=True)

    def end(self) -> None:
        """End the servers."""
        for child in self._children:
            child.kill()

    def _server(self, task: dict[str, Any]) -> None:
        argv = ["iperf3", "-s", "-J", "-p", str(task["payload"]["port"])]
        child = subprocess.Popen(argv, stdin=NULL, stdout=NULL, start_new_session=True)
        self._children.append(child)
        self._call(f"tasks/{task['id']}/started", {"pid": child.pid})
        result = {"started": True, "pid": child.pid}
        report = {"status": "succeeded", "result": result, "stderr": "", "exit_code": 0}
        self._call(f"tasks/{task['id']}/result", report)

    def _call(self, call: str, body: object) -> Any:
        answer = self._session.post(f"{self._url}/v1/agent/{call}", json=body)
        answer.raise_for_status()
        return answer.json()


if __name__ == "__main__":
    smallest = Smallest(sys.argv[1])
    smallest.run()
    sys.stdin.read()
    smallest.end()
