"""What the check says: faults that stop a training unless they are allowed by name, and warnings with their numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from trueup.data.tokens.record import Flag
from trueup.data.tokens.survey import Survey
from trueup.errors import DataError
from trueup.stats.intervals import rate

Level = Literal["error", "allowed", "warning", "note"]

SMALL_EFFECT = 0.2  # Cohen's d
MANY_DUPLICATES = 0.05
IMBALANCED = 0.2
MANY_REFUSALS = 0.05
FEW = 0.1  # a script or language of so few rows is rather an accident than a plan
OUTLIER = 10  # times the median
LITTLE_TRAINED = 0.05
_LISTED = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the check found.

    Attributes:
        code: its name; of a fault, the word that `allow` takes.
        level: "error" stops a training, "allowed" would but for `allow`, "warning" should be looked at, "note" is told.
        section: of the configuration: data, eval, mix, model, reference, reward.
        text: what was found, with numbers.
        fix: what to do about it; empty for notes.
        places: the first rows it was found in.
        numbers: the same for programs.
    """

    code: str
    level: Level
    section: str
    text: str
    fix: str = ""
    places: tuple[str, ...] = ()
    numbers: dict[str, float | int | list[list[int]]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Fit for JSON."""
        told: dict[str, object] = {"code": self.code, "level": self.level, "section": self.section, "text": self.text}
        return told | {"fix": self.fix, "places": list(self.places), "numbers": self.numbers}

    def in_words(self) -> str:
        """For a person, with the places."""
        where = f" ({_listed(self.places)})" if self.places else ""
        return f"{self.section}: {self.text}{where}" + (f"\n  fix: {self.fix}" if self.fix else "")


def fault(code: str, section: str, text: str, fix: str, allow: Sequence[str], places: Sequence[str] = ()) -> Finding:
    """A fault: an error, or, where `allow` names it, known."""
    if code in allow:
        return Finding(code, "allowed", section, f"{text}; allowed", "", tuple(places))
    return Finding(code, "error", section, text, f"{fix}, or allow it: allow=[{code}]", tuple(places))


FAULTS: dict[Flag, tuple[str, str, str]] = {
    Flag.SPECIAL: (
        "special-text",
        "the text of control tokens ({spelled}) is in {n} of {rows} rows: to the model it is ordinary text",
        "take it out of the messages",
    ),
    Flag.APPLIED: (
        "applied-template",
        "the chat template's own headers stand in the messages of {n} of {rows} rows: it would be applied twice",
        "give the messages as they were before a template was applied",
    ),
    Flag.DOUBLED: (
        "doubled-special-tokens",
        "{n} of {rows} rows begin with the first token (bos) twice",
        "take it out of the chat_template or of the text",
    ),
    Flag.EMPTY: ("empty-response", "{n} of {rows} rows have an empty response", "remove these rows"),
    Flag.REWRITTEN: (
        "rewritten-history",
        "the chat template changes answers once others follow: in {n} of {rows} rows only the last one is trained",
        "use a template that only appends, or split conversations so that each answer is the last",
    ),
}


def of_rows(section: str, found: Survey, allow: Sequence[str], *, trains: bool, spelled: str = "") -> list[Finding]:
    """Faults and warnings that follow from one section's rows.

    Args:
        section: its name.
        found: its survey.
        allow: faults that are known.
        trains: whether these rows' tokens are targets (not so for PPO's prompts).
        spelled: the control tokens that the first of the rows that spell one spells.
    """
    made: list[Finding] = []
    for flag, (code, text, fix) in FAULTS.items():
        if count := found.flags[flag]:
            told = text.format(n=f"{count:,}", rows=f"{found.rows:,}", spelled=spelled)
            made.append(fault(code, section, told, fix, allow, found.places[flag]))
    endless = found.rows - found.flags[Flag.ENDS]
    if trains and endless:
        text = f"the end token is not trained in {endless:,} of {found.rows:,} rows: the model would not learn to stop"
        made.append(fault("untrained-end", section, text, "end each answer with the end token", allow))
    if trains:
        made.append(_trained(section, found))
    made += [_lengths(section, found), *_pairs(section, found), *_labels(section, found), *_words(section, found)]
    return [_unlearnt(one) if section == "eval" else one for one in made]


def _unlearnt(one: Finding) -> Finding:
    """Of rows that are only measured on: what a model would learn of them is no warning."""
    return replace(one, level="note", fix="", places=()) if one.code in ("length-bias", "refusals") else one


def _trained(section: str, found: Survey) -> Finding:
    share = found.trained / max(1, found.tokens)
    ends = found.flags[Flag.ENDS]
    text = f"{found.trained:,} of {found.tokens:,} tokens are trained ({share:.0%}); end token trained in {ends:,} rows"
    numbers = {"trained": found.trained, "tokens": found.tokens, "share": share, "end_trained": ends}
    if share < LITTLE_TRAINED:
        fix = "nearly all of the time goes into prompts: shorten them, or check that the answers are in the right field"
        return Finding("trained-share", "warning", section, text, fix, numbers=numbers)
    return Finding("trained-share", "note", section, text, numbers=numbers)


def _lengths(section: str, found: Survey) -> Finding:
    median, most, longest = found.quantile(0.5), found.quantile(0.95), found.quantile(1.0)
    bars = found.histogram()
    text = f"tokens a row: median {median}, 95% have at most {most}, the longest {longest}"
    outliers = found.above(OUTLIER * max(median, 1))
    numbers = {"median": median, "p95": most, "longest": longest, "outliers": outliers}
    told = {**numbers, "histogram": [list(bar) for bar in bars]}
    if outliers:
        text += f"; {outliers:,} are over {OUTLIER} times the median"
        return Finding(
            "length-outliers", "warning", section, text, "look at them: files pasted in, logs?", numbers=told
        )
    return Finding("lengths", "note", section, text, numbers=told)


def _pairs(section: str, found: Survey) -> list[Finding]:
    n = found.chosen.n
    if not n:
        return []
    share, d = found.longer / n, found.cohens_d
    text = f"chosen is longer than rejected in {share:.0%} of {n:,} pairs, shorter in {found.shorter / n:.0%}; "
    text += f"mean {found.chosen.mean:.1f} against {found.rejected.mean:.1f} tokens, Cohen's d {d:+.2f}"
    numbers = {"longer": share, "shorter": found.shorter / n, "pairs": n}
    if math.isfinite(d):  # JSON has no infinity
        numbers["cohens_d"] = d
    if abs(d) < SMALL_EFFECT:
        return [Finding("length-bias", "note", section, text, numbers=numbers)]
    way = "longer" if d > 0 else "shorter"
    fix = f"the model will learn that {way} is better: balance the pairs, or use a length-controlled loss or penalty"
    return [Finding("length-bias", "warning", section, text, fix, numbers=numbers)]


def _labels(section: str, found: Survey) -> list[Finding]:
    n = sum(found.labels)
    if not n:
        return []
    share = found.labels[0] / n
    text = f"{share:.0%} of {n:,} verdicts are true"
    if IMBALANCED <= share <= 1 - IMBALANCED:
        return [Finding("labels", "note", section, text, numbers={"true": share})]
    fix = "weigh the rarer side: loss.desirable_weight and loss.undesirable_weight"
    return [Finding("labels", "warning", section, text, fix, numbers={"true": share})]


def _words(section: str, found: Survey) -> list[Finding]:
    """Scripts, languages and refusals, of the rows that were judged."""
    judged = found.flags[Flag.JUDGED]
    made = [
        *_mixed("scripts", section, found.scripts, ("none",)),
        *_mixed("languages", section, found.languages, ("unknown",)),
    ]
    refuses = found.flags[Flag.REFUSES]
    if refuses and judged:
        share = rate(refuses, judged)
        who = "chosen answers" if found.chosen.n else "answers"
        text = f"{refuses:,} of {judged:,} {who} looked at are refusals "
        text += f"({share.value:.1%} [{share.low:.1%}, {share.high:.1%}])"
        numbers = {"refusals": refuses, "judged": judged, "share": share.value}
        many = share.value > MANY_REFUSALS
        fix = (
            "the model will learn to refuse: are these prompts harmful? Mix in answered ones (mix.data)" if many else ""
        )
        places = tuple(found.places[Flag.REFUSES]) if many else ()
        made.append(Finding("refusals", "warning" if many else "note", section, text, fix, places, numbers))
    return made


def _mixed(code: str, section: str, counts: Counter[str], aside: Sequence[str]) -> list[Finding]:
    """A warning where nearly all rows are of one kind, and a few of another."""
    known = Counter({name: count for name, count in counts.items() if count and name not in aside})
    n = known.total()
    if len(known) < 2:
        return []
    shares = ", ".join(f"{name} {count / n:.1%}" for name, count in known.most_common(5))
    rest = 1 - known.most_common(1)[0][1] / n
    level: Level = "warning" if rest < FEW else "note"
    fix = "are the few meant to be there?" if level == "warning" else ""
    return [Finding(code, level, section, f"{code} of the answers: {shares}", fix, numbers={"other": rest})]


def duplicates(section: str, near: int, exact: int, rows: int) -> Finding:
    """How many rows have an equal or nearly equal one before them."""
    share = near / max(rows, 1)
    text = f"{near:,} of {rows:,} rows ({share:.1%}) nearly repeat an earlier one, {exact:,} of them exactly"
    numbers = {"near": near, "exact": exact, "share": share}
    if share > MANY_DUPLICATES:
        fix = "remove them: they count as often as they stand there, and a held-out share must keep them together"
        return Finding("duplicates", "warning", section, text, fix, numbers=numbers)
    return Finding("duplicates", "note", section, text, numbers=numbers)


def contradicting(section: str, count: int, shown: Sequence[tuple[str, str]], *, labelled: bool) -> list[Finding]:
    """Pairs of answers that were ranked both ways, or answers with both labels."""
    if not count:
        return []
    places = tuple(f"{one} and {other}" for one, other in shown)
    what = "answers are labelled both true and false" if labelled else "pairs of answers are ranked both ways"
    fix = "keep one verdict, or count votes"
    return [Finding("contradictions", "warning", section, f"{count:,} {what}", fix, places, {"pairs": count})]


def overlapping(
    section: str, exact: int, near: int, of: int, shown: Sequence[str], allow: Sequence[str]
) -> list[Finding]:
    """Held-out rows that are trained on."""
    if not exact + near:
        return []
    text = f"{exact + near:,} of {of:,} held-out rows are trained on: {exact:,} word for word, {near:,} nearly"
    return [fault("eval-overlap", section, text, "remove them, or hold out by data.holdout", allow, shown)]


def raise_errors(findings: Sequence[Finding]) -> None:
    """Raise a DataError that tells the faults that are not allowed, in six lines at most.

    Raises:
        DataError: there is one.
    """
    errors = [one for one in findings if one.level == "error"]
    if errors:
        shown = errors if len(errors) <= 3 else errors[:2]
        more = f"\n(and {len(errors) - 2} more: `trueup check` tells all)" if len(errors) > 3 else ""
        raise DataError("\n".join(one.in_words() for one in shown) + more)


def _listed(places: Sequence[str]) -> str:
    return ", ".join([*places[:_LISTED], *(["…"] if len(places) > _LISTED else [])])  # how many is in the text
