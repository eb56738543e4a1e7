"""The stored error of the grader of written answers: counts on labelled (question, accepted, reply) cases.

`python scripts/answer_error.py --write` counts them again on `evaluation/data/answers.jsonl` and stores them in
`error.json`; a test compares. The cases were written by somebody who had not seen the grader: those of the split "dev"
were used to develop it, those of the split "test" were not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from trueup.stats.intervals import Estimate, rate

COMMAND = "python scripts/answer_error.py"


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """A reply to a question, labelled by its author: `right` is True if it gives an accepted answer.

    `split` is "dev" or "test"; `kind` says what the case tries, such as "negation".
    """

    question: str
    accepted: list[str]
    reply: str
    right: bool
    kind: str
    split: str


@dataclass(frozen=True, slots=True)
class GraderError:
    """Error rates of `is_right` on the labelled answers of a split.

    Attributes:
        split: "dev" or "test".
        rejected: the share of right answers that are graded wrong, with Wilson's 95% interval.
        accepted: the share of wrong answers that are graded right, with Wilson's 95% interval.
    """

    split: str
    rejected: Estimate
    accepted: Estimate

    @property
    def slope(self) -> float:
        """The factor by which a difference of two models' accuracy shrinks where both replies have this error."""
        return 1 - self.rejected.value - self.accepted.value

    def __str__(self) -> str:
        seen = "which the rules were not written on" if self.split == "test" else "which the rules were developed on"
        return (
            f"graded wrong {self.rejected} of {self.rejected.n} right answers, right {self.accepted} of "
            f"{self.accepted.n} wrong ones (labelled apart from the rules, {seen})"
        )


@cache
def load_answers() -> tuple[LabelledAnswer, ...]:
    """Return the labelled answers of both splits, in the order of their file."""
    file = resources.files("trueup.evaluation") / "data" / "answers.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return tuple(LabelledAnswer(**row) for row in rows)


def count(rows: Sequence[LabelledAnswer], verdicts: Sequence[bool]) -> dict[str, dict[str, int]]:
    """Return for each split the numbers of right and wrong answers, and of those that were graded otherwise."""
    counts: dict[str, dict[str, int]] = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        part = counts.setdefault(row.split, {"right": 0, "rejected": 0, "wrong": 0, "accepted": 0})
        part["right" if row.right else "wrong"] += 1
        if verdict != row.right:
            part["rejected" if row.right else "accepted"] += 1
    return counts


def stored_counts() -> dict[str, dict[str, int]]:
    """Return the stored counts: split -> numbers, as `count` returns them."""
    return json.loads((resources.files("trueup.evaluation.answers") / "error.json").read_text(encoding="utf-8"))


@cache
def grader_error() -> GraderError:
    """Return the stored error rates on the answers that the rules were not written on, those of the split "test"."""
    part = stored_counts()["test"]
    return GraderError("test", rate(part["rejected"], part["right"]), rate(part["accepted"], part["wrong"]))
