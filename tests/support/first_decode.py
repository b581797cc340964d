"""Decodes documents in native threads at once, as the first thing that this process decodes."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

import gevent  # noqa: E402

from agent.iperf3.summary import read_summary  # noqa: E402
from agent.native_threads import NativeThreads  # noqa: E402

AT_ONCE = 8
DOCUMENT = b"""{
"start": {"version": "iperf 3.12", "test_start": {"protocol": "TCP"}},
"end": {"sum_sent": {"bytes": 1}, "sum_received": {"bytes": 1},
        "cpu_utilization_percent": {"host_total": 1}}}"""

if __name__ == "__main__":
    # The interpreter changes between threads all the time.
    sys.setswitchinterval(1e-6)
    threads = NativeThreads(AT_ONCE)
    calls = [gevent.spawn(threads.call, read_summary, DOCUMENT) for _ in range(AT_ONCE)]
    gevent.joinall(calls, raise_error=True)
