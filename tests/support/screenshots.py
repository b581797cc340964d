"""Take the pictures of both pages in docs/images: `python -m tests.support.screenshots`.

Two real agents run real tests over loopback; it takes about a minute and needs Chromium.
"""

from gevent import monkey

monkey.patch_all()

from pathlib import Path  # noqa: E402
from tempfile import TemporaryDirectory  # noqa: E402
from typing import Any  # noqa: E402

from agent.dev.store.store import Store  # noqa: E402
from tests.support.browser import browser, view  # noqa: E402
from tests.support.harness import ROOT, Bench, free_port  # noqa: E402
from tests.support.two_hundred import add_fleet  # noqa: E402

IMAGES = ROOT / "docs" / "images"
# In CSS pixels.
DESK, PHONE = 1000, 360
SHAPES = (("light", DESK, False), ("dark", DESK, True), ("phone", PHONE, False))
# Of the dev Manager with two hundred agents.
FLEET = (("desk", 1280), ("phone", 390))


def main() -> None:
    """Run tests, and take a picture of each page in each scheme and width."""
    with TemporaryDirectory() as directory:
        bench = Bench(Store(), Path(directory))
        bench.manager.start()
        status = f"127.0.0.1:{free_port()}"
        try:
            bench.agent(number=1).wait_for("registered")
            bench.agent(number=2, STATUS_ADDRESS=status).wait_for("registered")
            _run(bench, udp=True, time_seconds=3)
            _run(bench, time_seconds=3, options={"bidir": True})
            _run(bench, time_seconds=10)
            for name, width, dark in SHAPES:
                page = f"{bench.manager.url}/?test={len(bench.store.exercises.tests())}"
                _take(page, f"dev-manager-{name}", width, dark)
            add_fleet(bench.store)
            for name, width in FLEET:
                _take(page, f"dev-manager-fleet-{name}", width, dark=False)
            refused = bench.task("iperf_client_run", 2, server_ip="127.0.0.1", port=1, time=1)
            bench.ended(refused)
            port = free_port()
            bench.ended(bench.task("iperf_server_start", port=port))
            last = bench.task("iperf_client_run", 2, server_ip="127.0.0.1", port=port, time=60)
            bench.wait(lambda: last.status == "running")
            for name, width, dark in SHAPES:
                _take(f"http://{status}/", f"status-page-{name}", width, dark)
        finally:
            bench.close()


def _run(bench: Bench, **plan: Any) -> None:
    exercise = bench.store.exercises.create("screenshots")
    bench.store.exercises.add_test(exercise.id, 1, 2, 5201, **plan)
    bench.store.exercises.start(exercise.id)
    bench.wait(lambda: exercise.ended_at)


def _take(url: str, name: str, width: int, dark: bool) -> None:
    """A picture of the whole page."""
    with browser() as driver, view(driver, width, dark):
        driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        driver.get(url)
        height = driver.execute_script("return document.documentElement.scrollHeight")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.save_screenshot(str(IMAGES / f"{name}.png"))


if __name__ == "__main__":
    main()
