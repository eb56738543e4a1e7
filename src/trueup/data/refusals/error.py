"""The stored error of the refusal detector: counts on labelled replies, by model and language.

`python scripts/refusal_error.py --write` counts them again. XSTest's replies are not part of the package, so the counts
are stored in `error.json`, and a test compares them with a new count.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from trueup.stats.intervals import Estimate, rate

COMMAND = "python scripts/refusal_error.py"
# Refusals and answers that a set needs for error rates of its own.
_FEWEST = 50


@dataclass(frozen=True, slots=True)
class DetectorCounts:
    """The detector's right and wrong answers on one set of labelled replies, of one model or language.

    Attributes:
        name: the set and the model, such as "XSTest, llama2orig".
        language: the replies' language, a code such as "en".
        unseen: True if the rules were written without these replies.
        refusals: replies that refuse by their label. found: those of them that are detected.
        answers: replies that answer by their label. flagged: those of them that are taken for refusals.
        unsure: replies of the class "unsure" among both.
    """

    name: str
    language: str
    unseen: bool
    refusals: int
    found: int
    answers: int
    flagged: int
    unsure: int

    @property
    def missed(self) -> Estimate:
        """The share of refusals that are not detected, with Wilson's interval."""
        return rate(self.refusals - self.found, self.refusals)

    @property
    def false_alarms(self) -> Estimate:
        """The share of answers that are taken for refusals, with Wilson's interval."""
        return rate(self.flagged, self.answers)


@dataclass(frozen=True, slots=True)
class DetectorError:
    """Error rates of the detector `is_refusal` on labelled replies.

    Attributes:
        missed: the share of refusals that it does not detect, with a 95% interval.
        false_alarms: the share of answers that it takes for refusals, with a 95% interval.
        parts: the counts that the rates are the sums of, one for each model or language.
        unseen: True if the rules were written without these replies.
    """

    missed: Estimate
    false_alarms: Estimate
    parts: tuple[DetectorCounts, ...]
    unseen: bool

    def __str__(self) -> str:
        names = dict.fromkeys(part.name.partition(",")[0] for part in self.parts)
        seen = "which the rules were not written on" if self.unseen else "which the rules were written on"
        return (
            f"missed {self.missed} of {self.missed.n} refusals, flagged {self.false_alarms} of {self.false_alarms.n} "
            f"answers ({' and '.join(names)}, {seen})"
        )


@cache
def stored_counts() -> tuple[DetectorCounts, ...]:
    """Return the stored counts of all labelled sets."""
    text = (resources.files("trueup.data.refusals") / "error.json").read_text(encoding="utf-8")
    return tuple(DetectorCounts(**row) for row in json.loads(text)["counts"])


def summed(parts: tuple[DetectorCounts, ...]) -> DetectorError:
    """Return the error rates over all replies of several sets.

    Raises:
        ValueError: the sets have no refusals or no answers.
    """
    refusals, answers = sum(part.refusals for part in parts), sum(part.answers for part in parts)
    missed = rate(refusals - sum(part.found for part in parts), refusals)
    alarms = rate(sum(part.flagged for part in parts), answers)
    return DetectorError(missed, alarms, parts, all(part.unseen for part in parts))


def detector_error(language: str | None = None) -> DetectorError:
    """Return the stored error rates: on replies that the rules were not written on where there are any, else on XSTest.

    Args:
        language: a code such as "de": the error in that language, on all labelled replies in it. None: of all replies.

    Raises:
        ValueError: no labelled replies are in that language.
    """
    counts = stored_counts()
    if language is not None:
        return summed(tuple(part for part in counts if part.language == language))
    unseen = tuple(part for part in counts if part.unseen)
    return summed(unseen or tuple(part for part in counts if part.name.startswith("XSTest")))


def models_error() -> tuple[DetectorCounts, ...]:
    """Return the counts between which the error of one model differs from another's: English sets of 50 of each kind."""
    return tuple(
        part for part in stored_counts() if part.language == "en" and min(part.refusals, part.answers) >= _FEWEST
    )
