"""The confusion matrix: what was said of each group of scenes, by both halves and by each alone."""

import platform
from collections import Counter
from datetime import date

from tests.lab.verdicts import HALVES, Verdict

_WIDTH = 34


def matrix(found: list[Verdict]) -> str:
    """A table with a row for each group of scenes, and the shares that are right below it.

    A cell counts what is right, sure or not, and then each wrong cause; `!` marks wrong and sure.
    """
    groups = dict.fromkeys(each.scene.group for each in found)
    lines = [f"Linux {platform.release()}, {date.today()}", _row("scenes", *HALVES)]
    for group in groups:
        of_group = [each for each in found if each.scene.group == group]
        cells = [_cell([each for each in of_group if each.half == half]) for half in HALVES]
        runs = sum(each.half == "both" for each in of_group)
        lines.append(_row(f"{group} ({runs})", *cells))
    shares = [_shares([each for each in found if each.half == half]) for half in HALVES]
    return "\n".join([*lines, _row("right, sure; wrong and sure", *shares)])


def _row(*cells: str) -> str:
    return " | ".join(cell.ljust(_WIDTH) for cell in cells).rstrip()


def _cell(said: list[Verdict]) -> str:
    counts = Counter(_word(each) for each in said)
    return ", ".join(f"{count} {word}" for word, count in counts.most_common())


def _word(verdict: Verdict) -> str:
    if verdict.is_right:
        return "sure" if verdict.is_sure else "not sure"
    return verdict.cause + "!" * verdict.misleads


def _shares(said: list[Verdict]) -> str:
    right = sum(each.is_right for each in said) / max(1, len(said))
    sure = sum(each.is_right and each.is_sure for each in said) / max(1, len(said))
    return f"{right:.1%}, {sure:.1%}; {sum(each.misleads for each in said)} of {len(said)}"
