"""Findings of the data check, with numbers: faults (they stop a training unless allowed by name), warnings, notes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal

from trueup.data.refusals.languages import NAMES
from trueup.data.tokens.record import LANGUAGES, SCRIPTS, Flag
from trueup.data.tokens.survey import Survey
from trueup.errors import DataError
from trueup.stats.intervals import rate
from trueup.system.text import clean, listed

FindingLevel = Literal["error", "allowed", "warning", "note"]

SMALL_EFFECT = 0.2  # Cohen's d
MANY_DUPLICATES = 0.05
IMBALANCED = 0.2
MANY_REFUSALS = 0.05
FEW = 0.1  # a script or language of a smaller share of rows is more likely an accident
OUTLIER = 10  # times the median
LITTLE_TRAINED = 0.05
_LISTED = 3
_LISTED_REASONS, _LISTED_FIELDS = 6, 20
OPTIONAL = ("margin", "system", "history", "context", "weight", "train", "label")
"""Fields that a row need not have, so that a misspelt one would not be missed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of the data check.

    Attributes:
        code: its name, e.g. "empty-response"; for a fault, the word that the setting `allow` takes.
        level: "error" (a fault that stops a training), "allowed" (a fault that `allow` names), "warning" or "note".
        section: the section of the configuration: data, eval, mix, model, reference, reward.
        text: the finding in words, with numbers.
        fix: advice on what to do about it; empty for notes.
        places: file and line of the first rows that have it.
        numbers: the numbers in the text by name, for programs.
    """

    code: str
    level: FindingLevel
    section: str
    text: str
    fix: str = ""
    places: tuple[str, ...] = ()
    numbers: dict[str, float | int | list[list[int]]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Return the finding as a dict for JSON, with its attributes as keys."""
        head: dict[str, object] = {"code": self.code, "level": self.level, "section": self.section, "text": self.text}
        return head | {"fix": self.fix, "places": list(self.places), "numbers": self.numbers}

    def in_words(self) -> str:
        """Return the finding as a message of one or two lines, with the first places and the fix."""
        places = f" ({_listed(self.places)})" if self.places else ""
        return f"{self.section}: {self.text}{places}" + (f"\n  fix: {self.fix}" if self.fix else "")


def fault(code: str, section: str, text: str, fix: str, allow: Sequence[str], places: Sequence[str] = ()) -> Finding:
    """Return the finding for a fault, of the level "allowed" if `allow` contains `code`, else "error"."""
    if code in allow:
        return Finding(code, "allowed", section, f"{text}; allowed", "", tuple(places))
    return Finding(code, "error", section, text, f"{fix}, or allow it: allow=[{code}]", tuple(places))


FAULTS: dict[Flag, tuple[str, str, str]] = {
    Flag.SPECIAL: (
        "special-text",
        "the text of control tokens ({spelled}) is in {n} of {rows} rows: to the model it is ordinary text",
        "remove it from the messages",
    ),
    Flag.APPLIED: (
        "applied-template",
        "the chat template's own headers are in the messages of {n} of {rows} rows: it would be applied twice",
        "give the messages as they were before a template was applied",
    ),
    Flag.DOUBLED: (
        "doubled-special-tokens",
        "{n} of {rows} rows begin with the first token (bos) twice",
        "remove it from the chat_template or from the text",
    ),
    Flag.WRONG_CALL: (
        "wrong-calls",
        "tool calls in {n} of {rows} rows do not fit the tools declared ({spelled})",
        "correct the calls or the declarations",
    ),
    Flag.REWRITTEN: (
        "rewritten-history",
        "the chat template changes answers once others follow: in {n} of {rows} rows these are not trained",
        "use a template that keeps them, or split conversations so that each answer is the last",
    ),
    Flag.UNKNOWN: (
        "unknown-answers",
        "an answer of {n} of {rows} rows is unknown to the tokenizer, which lacks all of its letters ({spelled})",
        "use a model whose tokenizer has these characters, or remove these rows",
    ),
    Flag.EMPTY: ("empty-response", "{n} of {rows} rows have an empty response", "remove these rows"),
}


def reading_findings(section: str, meta: Mapping[str, Any]) -> list[Finding]:
    """Return the notes on how the rows of a source were read: as which format, which were left out, what is not read.

    Args:
        section: the section's name.
        meta: the counts of the source, with its format and the fields by which that was recognised.
    """
    text = f"read as {meta['format']}, because the first row has: {meta['reason']}"
    result = [Finding("format", "note", section, text)]
    if keys := meta["keys"]:
        named = listed(map(str, keys), _LISTED_FIELDS)
        text = f"the rows are the list under the key {named}; what else the file holds, such as a version, is not read"
        result.append(Finding("rows-key", "note", section, text))
    if hidden := meta["hidden"]:
        names = listed(map(str, hidden), _LISTED_FIELDS)
        text = f"hidden files of the folder are not read: {names}"
        result.append(Finding("hidden-files", "note", section, text, numbers={"files": len(hidden)}))
    if dropped := meta["dropped"]:
        reasons = Counter(drop["reason"].partition(":")[0] for drop in dropped)
        counted = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(_LISTED_REASONS))
        places = tuple(drop["at"] for drop in dropped[:10])
        text = f"{len(dropped):,} of {meta['read']:,} rows are left out: {counted}"
        result.append(Finding("left-out", "note", section, text, "", places, {"rows": len(dropped), **reasons}))
    if notes := meta["note_counts"]:
        counted = "; ".join(f"{note} ({count:,} rows)" for note, count in Counter(notes).most_common(_LISTED_REASONS))
        places = tuple(note["at"] for note in meta["notes"][:10])
        result.append(Finding("odd-rows", "note", section, f"read all the same: {counted}", "", places, dict(notes)))
    return result + _unread(section, meta)


def _unread(section: str, meta: Mapping[str, Any]) -> list[Finding]:
    """Return the note on fields that nothing reads; a warning if one of them is nearly the name of a field of ours."""
    unread, rows = Counter[str](meta["unread"]), max(1, meta["holders"])
    if not unread:
        return []
    shares = ", ".join(
        f"{clean(name, one_line=True)[:60]} {count / rows:.0%}" for name, count in unread.most_common(_LISTED_FIELDS)
    )
    more = f", and {len(unread) - _LISTED_FIELDS} more" if len(unread) > _LISTED_FIELDS else ""
    text = f"fields that nothing reads (share of the rows that hold them): {shares}{more}"
    numbers: dict[str, float | int | list[list[int]]] = {name: count / rows for name, count in unread.items()}
    meant = {name: near[0] for name in unread if (near := get_close_matches(name.lower(), OPTIONAL, n=1, cutoff=0.8))}
    if not meant:
        return [Finding("unread-fields", "note", section, text, numbers=numbers)]
    fix = "; ".join(f"rename {name} if {field} is meant" for name, field in meant.items())
    return [Finding("unread-fields", "warning", section, text, fix, numbers=numbers)]


def row_findings(
    section: str, survey: Survey, allow: Sequence[str], *, trains: bool, spelled: Mapping[Flag, str] | None = None
) -> list[Finding]:
    """Return the faults, warnings and notes that follow from the survey of one section's rows.

    Args:
        section: the section's name.
        survey: the counts over its rows, e.g. lengths and flags.
        allow: the codes of the faults that the configuration allows.
        trains: True if tokens of these rows are trained (not so for PPO's prompts).
        spelled: details of the first row with a flag, such as the control tokens in its text, for the message.
    """
    result: list[Finding] = []
    for flag, (code, text, fix) in FAULTS.items():
        if count := survey.flags[flag]:
            message = text.format(n=f"{count:,}", rows=f"{survey.rows:,}", spelled=(spelled or {}).get(flag, ""))
            result.append(fault(code, section, message, fix, allow, survey.places[flag]))
    endless = survey.rows - survey.flags[Flag.ENDS]
    if trains and endless:
        text = f"the end token is not trained in {endless:,} of {survey.rows:,} rows: the model would not learn to stop"
        result.append(fault("untrained-end", section, text, "end each answer with the end token", allow))
    if trains:
        result.append(_trained(section, survey))
    result += [_lengths(section, survey), *_pairs(section, survey), *_labels(section, survey), *_words(section, survey)]
    result += _changed(section, survey, (spelled or {}).get(Flag.CHANGED, ""))
    return [_of_held_out(finding) if section == "eval" else finding for finding in result]


TEMPLATE_EFFECTS: dict[Flag, tuple[str, FindingLevel, str, str]] = {
    Flag.THOUGHT: ("thoughts", "note", "have a thought before an answer; it is {state}", ""),
    Flag.CALLS: ("tool-calls", "note", "have tool calls; these are trained, results of tools are not", ""),
    Flag.EMPTY_THOUGHT: (
        "empty-thoughts",
        "note",
        "have an answer without a thought, written with an empty one as the model's family does; it is {state}",
        "",
    ),
    Flag.LOST_THOUGHT: (
        "lost-thoughts",
        "warning",
        "have thoughts in earlier answers that the chat template leaves out: these answers are trained without",
        "split the conversations so that each answer is the last, or let the template keep thoughts{switch}",
    ),
    Flag.MOVED: (
        "moved-history",
        "warning",
        "have earlier answers behind another text than that of their own prompts; they are trained as it stands",
        "split the conversations so that each answer is the last",
    ),
    Flag.UNPROMPTED: (
        "other-beginning",
        "warning",
        "have an answer that begins otherwise than the generation prompt ends: it will not be sampled behind that",
        "set the template's variables as these rows need them{switch}, or give them a thought",
    ),
    Flag.OPEN: (
        "open-answers",
        "warning",
        "have an earlier answer that the chat template ends without an end token: it is trained to go on there",
        "give a chat_template that ends every answer (chatml), or split the conversations so that each is the last",
    ),
    Flag.SYSTEM_DROPPED: (
        "dropped-system",
        "warning",
        "have a system message that the chat template leaves out: the model does not see it",
        "move it into the first user message, or give a chat_template that writes it",
    ),
}
"""What a chat template does with rows -> (code, level, text behind "n of N rows", fix)."""


def template_findings(
    section: str, survey: Survey, *, train_thinking: bool, variables: Sequence[str] = ()
) -> list[Finding]:
    """Return notes and warnings on what the chat template does with the thoughts, histories and system messages.

    Args:
        section: the section's name.
        survey: the counts over its rows, e.g. flags.
        train_thinking: True if thoughts are trained.
        variables: variables of the template that switch thoughts on or off, for the advice.
    """
    state = "trained" if train_thinking else "not trained (train_thinking: false)"
    switch = f" (template: {{{variables[0]}: …}})" if variables else ""
    result: list[Finding] = []
    for flag, (code, level, text, fix) in TEMPLATE_EFFECTS.items():
        if count := survey.flags[flag]:
            share = count / max(1, survey.rows)
            words = f"{count:,} of {survey.rows:,} rows ({share:.0%}) {text.format(state=state)}"
            places = tuple(survey.places[flag]) if level == "warning" else ()
            numbers: dict[str, Any] = {"rows": count, "share": share}
            result.append(Finding(code, level, section, words, fix.format(switch=switch), places, numbers))
    return result


def _of_held_out(finding: Finding) -> Finding:
    """Return the finding for held-out rows: a bias becomes a note, because nothing is learned from these rows."""
    is_bias = finding.code in ("length-bias", "refusals")
    return replace(finding, level="note", fix="", places=()) if is_bias else finding


def _trained(section: str, survey: Survey) -> Finding:
    share = survey.trained / max(1, survey.tokens)
    ends = survey.flags[Flag.ENDS]
    text = (
        f"{survey.trained:,} of {survey.tokens:,} tokens are trained ({share:.0%}); end token trained in {ends:,} rows"
    )
    numbers = {"trained": survey.trained, "tokens": survey.tokens, "share": share, "end_trained": ends}
    if share < LITTLE_TRAINED:
        fix = "nearly all of the time goes into prompts: shorten them, or check that the answers are in the right field"
        return Finding("trained-share", "warning", section, text, fix, numbers=numbers)
    return Finding("trained-share", "note", section, text, numbers=numbers)


def _lengths(section: str, survey: Survey) -> Finding:
    median, most, longest = survey.quantile(0.5), survey.quantile(0.95), survey.quantile(1.0)
    bars = survey.histogram()
    text = f"tokens a row: median {median}, 95% have at most {most}, the longest {longest}"
    outliers = survey.above(OUTLIER * max(median, 1))
    numbers = {"median": median, "p95": most, "longest": longest, "outliers": outliers}
    with_bars = {**numbers, "histogram": [list(bar) for bar in bars]}
    if outliers:
        text += f"; {outliers:,} are over {OUTLIER} times the median"
        return Finding(
            "length-outliers", "warning", section, text, "look at them: files pasted in, logs?", numbers=with_bars
        )
    return Finding("lengths", "note", section, text, numbers=with_bars)


def _pairs(section: str, survey: Survey) -> list[Finding]:
    n = survey.chosen.n
    if not n:
        return []
    share, d = survey.longer / n, survey.cohens_d
    text = f"chosen is longer than rejected in {share:.0%} of {n:,} pairs, shorter in {survey.shorter / n:.0%}; "
    text += f"mean {survey.chosen.mean:.1f} against {survey.rejected.mean:.1f} tokens, Cohen's d {d:+.2f}"
    numbers = {"longer": share, "shorter": survey.shorter / n, "pairs": n}
    if math.isfinite(d):  # JSON has no infinity
        numbers["cohens_d"] = d
    if abs(d) < SMALL_EFFECT:
        return [Finding("length-bias", "note", section, text, numbers=numbers)]
    better = "longer" if d > 0 else "shorter"
    fix = f"the model will learn that {better} is better: balance the pairs, or use a length-controlled loss or penalty"
    return [Finding("length-bias", "warning", section, text, fix, numbers=numbers)]


def _labels(section: str, survey: Survey) -> list[Finding]:
    n = sum(survey.labels)
    if not n:
        return []
    share = survey.labels[0] / n
    text = f"{share:.0%} of {n:,} verdicts are true"
    if IMBALANCED <= share <= 1 - IMBALANCED:
        return [Finding("labels", "note", section, text, numbers={"true": share})]
    rarer = "desirable" if share < 0.5 else "undesirable"
    if share in (0, 1):
        fix = f"KTO learns from both kinds and no weight replaces one: add {rarer} completions"
        fix += ", or train SFT on these" if share else ", or give rankings, or SFT on good answers"
    else:
        fix = f"weigh the rarer side: loss.{rarer}_weight={max(share, 1 - share) / min(share, 1 - share):.2g}"
    return [Finding("labels", "warning", section, text, fix, numbers={"true": share})]


def _words(section: str, survey: Survey) -> list[Finding]:
    """Return the findings on scripts, languages and refusals in the answers that were examined for these."""
    judged = survey.flags[Flag.JUDGED]
    result = [
        *_mixed("scripts", section, survey.scripts, ("none",)),
        *_mixed("languages", section, survey.languages, ("unknown",)),
    ]
    refuses, unread = survey.flags[Flag.REFUSES], _unmeasured(survey)
    if refuses and judged:
        share = rate(refuses, judged)
        noun = "chosen answers" if survey.chosen.n else "answers"
        text = f"{refuses:,} of {judged:,} {noun} looked at are refusals "
        text += f"({share.value:.1%} [{share.low:.1%}, {share.high:.1%}])" + (f"; {unread}" if unread else "")
        numbers = {"refusals": refuses, "judged": judged, "share": share.value}
        many = share.value > MANY_REFUSALS
        fix = (
            "the model will learn to refuse: are these prompts harmful? Mix in answered ones (mix.data)" if many else ""
        )
        places = tuple(survey.places[Flag.REFUSES]) if many else ()
        result.append(Finding("refusals", "warning" if many else "note", section, text, fix, places, numbers))
    elif unread:
        result.append(Finding("refusals", "note", section, unread))
    return result


def _unmeasured(survey: Survey) -> str:
    """Return the sentence on answers in languages that the refusal detector has no rules for; "" if there are none."""
    languages = set(LANGUAGES) - {"unknown", *NAMES.values()}
    counts = {name: survey.languages[name] for name in sorted(languages)}
    counts |= {name: survey.scripts[name] for name in SCRIPTS if name not in ("none", "Latin", "Kana", "Han")}
    names = [name for name, count in counts.items() if count]
    if not names:
        return ""
    return f"refusals are not measured in {sum(counts.values()):,} answers in other languages ({', '.join(names)})"


def _changed(section: str, survey: Survey, spelled: str) -> list[Finding]:
    """Return the warning that the tokenizer changes texts, if it does; `spelled` is the first change."""
    changed, compared = survey.flags[Flag.CHANGED], survey.flags[Flag.COMPARED]
    if not changed:
        return []
    share = changed / max(1, compared)
    text = f"the tokenizer changes or loses text in {changed:,} of {compared:,} rows looked at ({share:.1%}): {spelled}"
    fix = "use a model whose tokenizer writes these characters, or accept that the model never sees nor writes them"
    places, numbers = tuple(survey.places[Flag.CHANGED]), {"changed": changed, "compared": compared, "share": share}
    return [Finding("changed-text", "warning", section, text, fix, places, numbers)]


def _mixed(code: str, section: str, counts: Counter[str], ignored: Sequence[str]) -> list[Finding]:
    """Return a finding if the answers have several scripts or languages (`code`), else nothing.

    It is a warning if all but a few have the same one. `counts` is {script or language: rows}; the names in `ignored`
    do not count.
    """
    known = Counter({name: count for name, count in counts.items() if count and name not in ignored})
    n = known.total()
    if len(known) < 2:
        return []
    shares = ", ".join(f"{name} {count / n:.1%}" for name, count in known.most_common(5))
    rest = 1 - known.most_common(1)[0][1] / n
    level: FindingLevel = "warning" if rest < FEW else "note"
    fix = "check that the few belong there" if level == "warning" else ""
    return [Finding(code, level, section, f"{code} of the answers: {shares}", fix, numbers={"other": rest})]


def duplicates(section: str, near: int, exact: int, rows: int) -> Finding:
    """Return the finding on repeated rows: `near` of `rows` repeat an earlier row at least nearly, `exact` exactly."""
    share = near / max(rows, 1)
    text = f"{near:,} of {rows:,} rows ({share:.1%}) nearly repeat an earlier one, {exact:,} of them exactly"
    numbers = {"near": near, "exact": exact, "share": share}
    if share > MANY_DUPLICATES:
        fix = "remove them: each copy is trained, and a held-out share must keep copies together"
        return Finding("duplicates", "warning", section, text, fix, numbers=numbers)
    return Finding("duplicates", "note", section, text, numbers=numbers)


def contradicting(section: str, count: int, shown: Sequence[tuple[str, str]], *, labelled: bool) -> list[Finding]:
    """Return the warning that answers are ranked both ways, or (`labelled`) labelled both true and false.

    It is left out if `count`, the number of such answers, is 0. `shown` has the places of the first ones, in pairs.
    """
    if not count:
        return []
    places = tuple(f"{first} and {second}" for first, second in shown)
    problem = "answers are labelled both true and false" if labelled else "pairs of answers are ranked both ways"
    fix = "keep one verdict, or count votes"
    return [Finding("contradictions", "warning", section, f"{count:,} {problem}", fix, places, {"pairs": count})]


def overlapping(
    section: str, exact: int, near: int, of: int, shown: Sequence[str], allow: Sequence[str]
) -> list[Finding]:
    """Return the fault that held-out rows are trained on too, if any are.

    `exact` of the `of` held-out rows repeat a training row word for word, `near` nearly; `shown` has the first places.
    """
    if not exact + near:
        return []
    text = f"{exact + near:,} of {of:,} held-out rows are trained on: {exact:,} word for word, {near:,} nearly"
    return [fault("eval-overlap", section, text, "remove them, or hold out by data.holdout", allow, shown)]


def trained_on(
    section: str, level: Literal["fault", "warning", "note"], counts: Mapping[str, int], stages: Mapping[str, int],
    shown: Sequence[str], allow: Sequence[str], *, ours: bool,
) -> Finding:  # fmt: skip
    """Return the finding that rows of the evaluation's set `section` are trained on.

    Args:
        section: the key of the set, e.g. "evaluate.prompts".
        level: "fault" stops unless `allow` has the word eval-overlap.
        counts: "exact": rows that occur word for word in training rows; "near": those that do nearly; "rows": all.
        stages: the number of these rows that each stage trains on.
        shown: the first places.
        allow: the faults to allow.
        ours: the set comes with trueup.
    """
    exact, near, rows = counts["exact"], counts["near"], counts["rows"]
    share = (exact + near) / max(rows, 1)
    text = (
        f"{exact + near:,} of {'our ' if ours else ''}{rows:,} rows ({share:.1%}) are trained on: {exact:,} word for "
    )
    text += f"word, {near:,} nearly; by {', '.join(f'{name} ({count:,})' for name, count in stages.items())}"
    numbers: dict[str, float | int | list[list[int]]] = {**counts, "share": share}
    if level == "fault":
        fix = "take them out of the training data or out of the set (rows, other files)"
        return replace(fault("eval-overlap", section, text, fix, allow, shown), numbers=numbers)
    fix = "what is measured on them is not held out: take them out of the training data, or measure on a set of yours"
    return Finding("eval-overlap", level, section, text, fix if level == "warning" else "", tuple(shown), numbers)


def raise_errors(findings: Sequence[Finding]) -> None:
    """Raise DataError if any finding has the level "error", with these findings in at most six lines.

    Raises:
        DataError: a fault is not allowed.
    """
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        shown = errors if len(errors) <= 3 else errors[:2]
        more = f"\n(and {len(errors) - 2} more: `trueup check` lists all)" if len(errors) > 3 else ""
        raise DataError("\n".join(finding.in_words() for finding in shown) + more)


def _listed(places: Sequence[str]) -> str:
    return ", ".join([*places[:_LISTED], *(["…"] if len(places) > _LISTED else [])])  # how many is in the text
