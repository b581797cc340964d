"""What both halves of a played scene say, together and each alone, and how right that is."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from agent.diagnosis.halves import together
from agent.protocol import Diagnosis, Report
from tests.lab.hosts import OTHER
from tests.lab.scenes import Scene

HALVES = ("both", "sender", "receiver")


@dataclass(frozen=True)
class Verdict:
    """What `half` says of a test of a scene in which that end sends; None if nothing."""

    scene: Scene
    sender: str
    half: str
    diagnosis: Diagnosis | None

    @property
    def cause(self) -> str:
        """What it names."""
        return self.diagnosis.limited_by.value if self.diagnosis else "nothing"

    @property
    def is_sure(self) -> bool:
        """Whether it is sure."""
        return bool(self.diagnosis and self.diagnosis.sure)

    @property
    def is_right(self) -> bool:
        """Whether it names what is true."""
        return self.cause in self.scene.right

    @property
    def misleads(self) -> bool:
        """Whether it is wrong and sure, which is the worst."""
        return self.is_sure and not self.is_right

    @property
    def is_wrong(self) -> bool:
        """Whether it should be mended: a half alone may name what it takes for likely."""
        return self.misleads or (self.half == "both" and not self.is_right)

    @property
    def is_missed(self) -> bool:
        """Whether both halves together do not name what nobody should be in doubt of."""
        return self.half == "both" and self.scene.is_clear and not self.is_right

    def __str__(self) -> str:
        lines = [f"{self.scene.name}, {self.sender} sends, {self.half}: {self.cause}"]
        if self.diagnosis:
            lines[0] += f"{', sure' * self.is_sure}: {self.diagnosis.words}"
            lines.append(str(self.diagnosis.evidence))
        return "\n    ".join(lines)


def verdicts(scene: Scene, client: Report, server: Report) -> Iterator[Verdict]:
    """What is said of each direction of a scene's test, given the reports of both tasks."""
    for sender in scene.senders:
        back = sender == "server" and len(scene.senders) > 1
        said = partial(_diagnosis, back=back)
        halves = {"client": client, "server": server}
        yield Verdict(scene, sender, "both", together(client, server, back))
        yield Verdict(scene, sender, "sender", said(halves[sender]))
        yield Verdict(scene, sender, "receiver", said(halves[OTHER[sender]]))


def _diagnosis(report: Report, back: bool) -> Diagnosis | None:
    return report.diagnosis_bidir_reverse if back else report.diagnosis
