"""What a run of the benchmarks keeps, and what it writes."""

from subprocess import CalledProcessError

import pytest

from agent.metrics import Metrics
from benchmarks import __main__, page
from benchmarks.__main__ import FLOORS, SECONDS, measure_all, measured
from benchmarks.figures import Figure, Floor, once
from benchmarks.idle_agents import Calls
from benchmarks.results import ROOT, Results, Run, decode, encode, in_tree

pytestmark = pytest.mark.process


def figures_of(name: str) -> list[Figure]:
    """What a script measures in these tests: 20 ms for a floor of 5 ms. The script idle fails."""
    if name == "idle":
        raise CalledProcessError(1, name)
    if name == FLOORS:
        return [Figure(Floor.CHILD, once(5), "ms")]
    return [Figure(name, once(20), "ms", floors=(Floor.CHILD,))]


@pytest.fixture(name="results")
def fixture_results() -> Results:
    """Results of another day, when all figures were 10."""
    figures = {name: [Figure(name, once(10), "ms")] for name in SECONDS}
    return {name: Run("2026-01-01", "a machine", figures[name]) for name in SECONDS}


def test_a_script_that_fails_is_named_and_only_its_figures_stay_as_they_were(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    kept: list[Results] = []
    failed = measure_all(
        [FLOORS, "latency", "idle", "start"],
        results,
        lambda r: kept.append(decode(encode(r))),
        figures_of,
    )
    assert failed == ["idle"]
    assert "idle failed" in capsys.readouterr().err
    values = {name: run.figures[0].measured.value for name, run in kept[-1].items()}
    assert values == dict.fromkeys(SECONDS, 10) | {FLOORS: 5, "latency": 20, "start": 20}
    assert kept[-1]["idle"].taken_at == "2026-01-01" < kept[-1]["latency"].taken_at


def test_a_script_that_is_skipped_has_not_failed_and_its_figures_stay(results: Results) -> None:
    def measure(name: str) -> list[Figure]:
        return [] if name == "far" else figures_of(name)

    assert not measure_all([FLOORS, "far", "start"], results, lambda _: None, measure)
    taken = [results[name].taken_at for name in ("far", "start")]
    assert taken[0] == "2026-01-01" < taken[1]


@pytest.mark.parametrize(("failed", "code"), [([], 0), (["idle"], 1)])
def test_the_exit_code_says_whether_a_script_failed(
    failed: list[str],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(__main__, "measure_all", lambda *_: failed)
    assert __main__.main(["idle"]) == code
    assert ("their figures stay as they were: idle" in capsys.readouterr().err) == bool(failed)


def test_an_unknown_name_ends_before_anything_is_measured() -> None:
    with pytest.raises(SystemExit, match="no such benchmark: latencies"):
        __main__.main(["idle", "latencies"])


def test_results_are_kept_after_each_script(results: Results) -> None:
    kept: list[list[float]] = []

    def keep(now: Results) -> None:
        kept.append([now[name].figures[0].measured.value for name in ("latency", "start")])

    measure_all([FLOORS, "latency", "start"], results, keep, figures_of)
    assert kept == [[10, 10], [20, 10], [20, 20]]


def test_figures_have_the_floor_of_their_own_run(results: Results) -> None:
    measure_all([FLOORS, "latency"], results, lambda _: None, figures_of)
    assert results["latency"].figures[0].floor == once(5)


def test_a_script_that_ends_with_an_error_fails() -> None:
    with pytest.raises(CalledProcessError):
        measured("no_such_script")


def test_all_scripts_have_committed_figures_and_known_floors() -> None:
    results = in_tree()
    assert list(results) == list(SECONDS)
    floors = {figure.what for figure in results[FLOORS].figures}
    named = {name for run in results.values() for figure in run.figures for name in figure.floors}
    assert named <= floors
    assert floors >= set(Floor)


def test_all_together_takes_less_than_half_an_hour() -> None:
    assert sum(SECONDS.values()) < 30 * 60


def test_the_page_has_the_table_of_the_results_and_fits_a_screen_and_a_half() -> None:
    text = page.PAGE.read_text()
    assert text == page.filled(text, in_tree())
    lines = text.splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= page.WIDTH


def test_the_table_shows_only_what_has_a_target() -> None:
    shown = Figure("start", once(20), "ms", most=10, floors=(Floor.START,), floor=once(16))
    hidden = Figure("calls", once(20), "a second")
    lines = list(page.table({"start": Run("2026-01-01", "a machine", [shown, hidden])}))
    assert lines[:2] == ["Measured on 2026-01-01: a machine.", "0 of 1 targets are reached."]
    assert lines[5:] == ["| start | ≤ 10 ms | 20 | 1.25 | **no** |"]


def test_every_script_is_there() -> None:
    assert all((ROOT / "benchmarks" / f"{name}.py").exists() for name in SECONDS)


def test_the_crowd_notes_its_calls_where_the_agent_counts_them() -> None:
    overridden = {name for name in vars(Calls) if not name.startswith("_")}
    assert overridden
    assert all(hasattr(Metrics, name) for name in overridden)
