"""Takes the pictures in docs/images of the dev Manager's page: `python -m tests.dev.screenshots`.

Two real agents run real tests over loopback; it takes about half a minute and needs Chromium.
"""

from gevent import monkey

monkey.patch_all()

from pathlib import Path  # noqa: E402
from tempfile import TemporaryDirectory  # noqa: E402
from typing import Any  # noqa: E402

from agent.dev.store import Store  # noqa: E402
from tests.browser import browser  # noqa: E402
from tests.harness import ROOT, Bench  # noqa: E402

IMAGES = ROOT / "docs" / "images"
# In CSS pixels.
DESK, PHONE = 1000, 360


def main() -> None:
    """Run three tests and take a picture of the last one in each scheme."""
    with TemporaryDirectory() as directory:
        bench = Bench(Store(), Path(directory))
        bench.manager.start()
        try:
            for number in (1, 2):
                bench.agent(number=number).wait_for("registered")
            _run(bench, udp=True, time_seconds=3)
            _run(bench, time_seconds=3, options={"bidir": True})
            _run(bench, time_seconds=10)
            for name, width, dark in (
                ("light", DESK, False),
                ("dark", DESK, True),
                ("phone", PHONE, False),
            ):
                _take(bench, name, width, dark)
        finally:
            bench.close()


def _run(bench: Bench, **plan: Any) -> None:
    exercise = bench.store.create_exercise("screenshots")
    bench.store.add_test(exercise.id, 1, 2, 5201, **plan)
    bench.store.start_exercise(exercise.id)
    bench.wait(lambda: exercise.ended_at)


def _take(bench: Bench, name: str, width: int, dark: bool) -> None:
    """A picture of the whole page."""
    with browser(width=width, dark=dark) as driver:
        driver.get(f"{bench.manager.url}/?test={len(bench.store.tests())}")
        height = driver.execute_script("return document.body.offsetHeight")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.save_screenshot(str(IMAGES / f"dev-manager-{name}.png"))


if __name__ == "__main__":
    main()
