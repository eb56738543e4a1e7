"""Compute the report's measures from evaluated items: values with n and interval, and paired differences.

Two models are compared on the items that both have a number for, matched by id. Items that a judge gave no verdict on
are not left out: the interval spans every verdict that they could have had.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from trueup.data.refusal import classify
from trueup.data.refusals.error import detector_error, models_error
from trueup.data.refusals.languages import NAMES, language_of
from trueup.evaluation.answers.error import COMMAND as GRADER_COMMAND
from trueup.evaluation.answers.error import grader_error
from trueup.evaluation.grading import distinct
from trueup.evaluation.items import Item, of_task
from trueup.evaluation.published.table import PUBLISHED, entry_of
from trueup.evaluation.winrate import (
    FEWEST_MODELS,
    LengthControlled,
    Method,
    jointly_length_controlled,
    length_controlled,
)
from trueup.report.judge_card import Wins
from trueup.report.report_schema import Difference, Measure, ReportNumber, Topic
from trueup.stats.detected import DIFFERENCE, SHARE, corrected_difference, prediction_powered
from trueup.stats.intervals import Estimate, mean, rate
from trueup.stats.paired import PairedDifference, difference, holm, weighted_difference

Rows = Mapping[str, Sequence[Item]]
"""Model -> its items, in the order of the report."""


JUDGED_TASKS = (
    "over-refusal",
    "unsafe-compliance",
    *(name for name, entry in PUBLISHED.items() if entry.how in ("judged", "refused")),
)
"""Tasks whose values are verdicts from 0 to 1, which a judge may fail to give; of published sets it is "score"."""


@dataclass(frozen=True, slots=True)
class Spec:
    """Definition of a measure: the share or mean of one value of a task's items, or a ratio of sums.

    A ratio is the sum of `value` over the sum of the value that `per` names, such as nats per token.
    """

    key: str
    title: str
    unit: str
    better: Literal["higher", "lower", "neither"]
    task: str
    value: str
    kind: Literal["share", "mean", "ratio"] = "mean"
    per: str = ""
    bounds: tuple[float, float] = (-math.inf, math.inf)
    """The least and largest true value that a mean can have."""


NOT_NEGATIVE, SHARE_OF_ALL = (0.0, math.inf), (0.0, 1.0)
CAPABILITY = Spec("capability", "Capability", "share right", "higher", "capability", "right", "share")
SPECS = (
    CAPABILITY,
    Spec("harness", "lm-evaluation-harness", "mean score", "higher", "harness", "score"),
    Spec(
        "over-refusal", "Over-refusal", "share of innocent prompts refused", "lower", "over-refusal", "refused", "share"
    ),
    Spec(
        "unsafe-compliance", "Unsafe compliance", "share of unsafe prompts not refused", "lower", "unsafe-compliance",
        "complied", "share",
    ),
    Spec("forgetting", "Text outside the domain", "nats per token", "lower", "forgetting", "nats", "ratio", "tokens"),
    Spec("gold", "Gold reward", "score of an independent reward", "higher", "answers", "gold"),
    Spec("reward", "Proxy reward", "score of the reward that was optimized", "higher", "answers", "reward"),
    Spec(
        "preferences", "Moved towards what people chose", "share of rankings", "higher", "preferences", "won", "share"
    ),
    Spec("kl", "KL", "nats per answer", "neither", "answers", "kl", bounds=NOT_NEGATIVE),
    Spec(
        "kl-sampled", "KL, of the sampled tokens", "nats per answer", "neither", "answers", "kl_sampled",
        bounds=NOT_NEGATIVE,
    ),
    Spec("length", "Length", "tokens per answer", "neither", "answers", "length", bounds=NOT_NEGATIVE),
    Spec("ended", "Ends by itself", "share of answers", "higher", "answers", "ended", "share"),
    Spec(
        "repetition", "Repetition", "share of trigrams repeated", "lower", "answers", "repetition", bounds=SHARE_OF_ALL
    ),
    Spec("entropy", "Entropy", "nats per sampled token", "neither", "answers", "entropy", bounds=NOT_NEGATIVE),
)  # fmt: skip


def published_specs(rows: Rows) -> list[Spec]:
    """Return the measures of the published sets that some model was measured on: "gsm8k", "gsm8k/strict" and so on."""
    measured = {item.task for items in rows.values() for item in items}
    return [
        Spec(
            name if key == "score" else f"{name}/{key}", value.title, value.unit, value.better, name, key, value.kind,
            value.per,
        )
        for name, entry in PUBLISHED.items() if name in measured
        for key, value in entry.values.items()
    ]  # fmt: skip


def prepared(items: Sequence[Item]) -> list[Item]:
    """Return the items with derived values added to the measured ones.

    "kl" is the exact one where it was measured, with the sampled tokens' own as "kl_sampled". "complied" and "answered"
    are 1 if the model did not refuse; "won" is 1 for a margin above 0, 0.5 for 0, else 0.
    """
    return [_with_derived(item) for item in items]


def _with_derived(item: Item) -> Item:
    values = dict(item.values)
    if item.task == "unsafe-compliance" and "refused" in values:
        values["complied"] = 1 - values["refused"]
    if item.task == "over-refusal" and "refused" in values:
        values["answered"] = 1 - values["refused"]
    if item.task == "answers" and "kl_exact" in values:
        values["kl_sampled"], values["kl"] = values["kl"], values["kl_exact"]
    if item.task == "preferences":
        values["won"] = 1.0 if values["margin"] > 0 else 0.5 if values["margin"] == 0 else 0.0
    return replace(item, values=values)


def completed(items: Sequence[Item], task: str, value: str, missing: float) -> dict[str, float]:
    """Return item id -> value for all items of a task, with `missing` for those that have no such value."""
    return {item.id: item.values.get(value, missing) for item in items if item.task == task}


def measures(
    rows: Rows,
    against: str,
    wins: Rows,
    judges: Mapping[str, str],
    settings: Mapping[str, Any],
    controlled: Mapping[str, LengthControlled] | None = None,
) -> list[Measure]:
    """Return every measure that has a value for some model.

    Args:
        rows: model -> its items, from `prepared`.
        against: the model that differences are taken from.
        wins: model -> a judge's verdicts on its answers against those of `against`.
        judges: model -> name of its judge.
        settings: the configuration's section `evaluate`, for the notes on measures.
        controlled: model -> its win rate at equal length, from `at_equal_length(wins)`, which is called by default.
    """
    results = [measure(spec, rows, against, settings) for spec in SPECS]
    results.insert(6, _win_rate(wins, judges))
    results.insert(7, _length_controlled(at_equal_length(wins) if controlled is None else controlled))
    results.append(_distinct(rows))
    results += [measure(spec, rows, against, settings) for spec in published_specs(rows)]
    return corrected([result for result in results if result.values])


def corrected(results: list[Measure]) -> list[Measure]:
    """Return the measures with p-values corrected for the number of differences in their table (Holm 1979).

    All measures of all models are one table, the topics of each measure another. A difference without a p-value counts
    as 0.05 where its interval excludes 0, else as 1.
    """
    tables = [
        [cell for result in results for cell in result.differences.values()],
        *([cell for topic in result.topics for cell in topic.differences.values()] for result in results),
    ]
    for table in tables:
        p_values = {str(number): _p(cell) for number, cell in enumerate(table)}
        for cell, p in zip(table, holm(p_values).values(), strict=True):
            cell.adjusted = p
    return results


def _p(difference: Difference) -> float:
    return difference.p if difference.p is not None else 0.05 if difference.shown else 1.0


def measure(spec: Spec, rows: Rows, against: str, settings: Mapping[str, Any]) -> Measure:
    """Return one measure of all models that have items for it, with paired differences from `against`, and by topic."""
    values = {name: ReportNumber.of(_estimate(spec, items)) for name, items in rows.items() if _has(spec, items)}
    result = Measure(key=spec.key, title=spec.title, unit=spec.unit, better=spec.better, values=values)
    result.differences = differences(spec, rows, against)
    result.topics = _topics(spec, rows, against)
    result.note = _note(spec, rows, against, settings) if values else None
    for name, items in rows.items():
        if values and (missing := _missing(spec, items)):
            total = sum(item.task == spec.task for item in items)
            text = f"{missing} of {total} verdicts on {name} are missing: its interval spans all they could be"
            result.note = f"{result.note}; {text}" if result.note else text
    return result


def differences(spec: Spec, rows: Rows, against: str) -> dict[str, Difference]:
    """Return model -> paired difference of a measure from the model `against`, for the models where there is one."""
    if against not in rows:
        return {}
    result: dict[str, Difference] = {}
    for name, items in rows.items():
        if name != against and (paired_difference := paired(spec, items, rows[against])) is not None:
            result[name] = paired_difference
    return result


def paired(spec: Spec, ours: Sequence[Item], theirs: Sequence[Item]) -> Difference | None:
    """Return the paired difference of a measure, `ours` minus `theirs`, on the items that both models have.

    None if there are no such items, or too few for an interval.
    """
    mine, other = (_columns(spec, items) for items in (ours, theirs))
    shared = [key for key in mine if key in other]
    if not shared:
        return None
    if _missing(spec, ours) or _missing(spec, theirs):
        return _spanning(spec, ours, theirs)
    a, b = ([column[key][0] for key in shared] for column in (mine, other))
    if spec.kind == "ratio":
        weights = ([column[key][1] for key in shared] for column in (mine, other))
        return as_difference(weighted_difference(a, b, *weights))
    return as_difference(difference(a, b))


def _spanning(spec: Spec, ours: Sequence[Item], theirs: Sequence[Item]) -> Difference | None:
    """Return the paired difference of a judged share, with an interval that spans all the missing verdicts could be."""
    ends: list[PairedDifference] = []
    for missing in (0.0, 1.0):
        mine, other = (
            completed(items, spec.task, spec.value, fill) for items, fill in ((ours, missing), (theirs, 1 - missing))
        )
        shared = [key for key in mine if key in other]
        ends.append(difference([mine[key] for key in shared], [other[key] for key in shared]))
    mine, other = (of_task(items, spec.task, spec.value) for items in (ours, theirs))
    judged = [key for key in mine if key in other]
    value = math.fsum(mine[key] - other[key] for key in judged) / len(judged)
    low, high = min(value, ends[0].low), max(value, ends[1].high)
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return Difference(value=value, low=low, high=high, n=ends[0].n, shown=low > 0 or high < 0)


def as_difference(result: PairedDifference) -> Difference | None:
    """Return a computed paired difference as a part of the report.

    None where so few items differ that the interval has no ends. One that is withheld because the items are too skewed
    is a part, with the reason.
    """
    if not result.withheld and not (math.isfinite(result.low) and math.isfinite(result.high)):
        return None
    return Difference(
        value=result.value,
        low=result.low,
        high=result.high,
        n=result.n,
        shown=result.shown,
        p=None if result.withheld else result.p,
        test=None if result.withheld else result.test,
        detectable=result.detectable if math.isfinite(result.detectable) else None,
        withheld=result.withheld or None,
    )


def _columns(spec: Spec, items: Sequence[Item]) -> dict[str, tuple[float, float]]:
    """Return item id -> (value, weight) for the items of a measure; the weight is 1 except for ratios."""
    return {
        item.id: (item.values[spec.value], item.values[spec.per] if spec.per else 1.0)
        for item in items
        if item.task == spec.task and spec.value in item.values
    }


def _has(spec: Spec, items: Sequence[Item]) -> bool:
    """Return True if there are enough items for the measure's interval: a mean needs two, a share one (Wilson)."""
    return len(of_task(items, spec.task, spec.value)) >= (1 if spec.kind == "share" else 2)


def _estimate(spec: Spec, items: Sequence[Item]) -> Estimate:
    columns = _columns(spec, items).values()
    values, weights = [value for value, _ in columns], [weight for _, weight in columns]
    if spec.kind == "share":
        return _share(sum(values), len(values), _missing(spec, items))
    if missing := _missing(spec, items):
        ends = [mean([*values, *[end] * missing]) for end in (0.0, 1.0)]
        return Estimate(math.fsum(values) / len(values), ends[0].low, ends[1].high, len(values) + missing)
    if spec.kind == "ratio":
        ratio = weighted_difference(values, [0.0] * len(values), weights)
        if not ratio.withheld and not math.isfinite(ratio.low):  # fewer than six texts of one likelihood a token
            return mean([value / weight for value, weight in zip(values, weights, strict=True)])
        return Estimate(ratio.value, ratio.low, ratio.high, ratio.n, ratio.withheld)
    return mean(values, bounds=spec.bounds)


def _missing(spec: Spec, items: Sequence[Item]) -> int:
    """Return the number of items on which a judge gave no verdict."""
    if spec.task not in JUDGED_TASKS or (spec.task in PUBLISHED and spec.value != "score"):
        return 0
    return sum(item.task == spec.task and spec.value not in item.values for item in items)


def _share(successes: float, judged: int, missing: int) -> Estimate:
    """Return the share of the judged items, with an interval that spans all that the missing verdicts could be."""
    if not missing:
        return rate(successes, judged)
    low, high = rate(successes, judged + missing).low, rate(successes + missing, judged + missing).high
    return Estimate(successes / judged, low, high, judged + missing)


def _topics(spec: Spec, rows: Rows, against: str) -> list[Topic]:
    """Return the values and differences of a measure by topic, then by level ("hard (level)", "level 3").

    Topics are left out if the items have fewer than two, and so are levels.
    """
    return [
        Topic(
            topic=title,
            values={name: ReportNumber.of(_estimate(spec, items)) for name, items in part.items() if _has(spec, items)},
            differences=differences(spec, part, against),
        )
        for title, part in _parts(spec, rows)
    ]


def _parts(spec: Spec, rows: Rows) -> Iterator[tuple[str, Rows]]:
    """Yield the title of each topic and each level of a measure's items, and the items of each model that have it."""
    for of_item, title in ((lambda item: item.topic, str), (lambda item: item.level, _level_title)):
        measured = (item for items in rows.values() for item in items if item.task == spec.task)
        names = dict.fromkeys(name for item in measured if (name := of_item(item)))
        if all(name.isdecimal() for name in names):  # levels, and categories that are numbers
            names = sorted(names, key=int)
        for name in names if len(names) > 1 else ():
            yield (
                title(name),
                {model: [item for item in items if of_item(item) == name] for model, items in rows.items()},
            )


def _level_title(level: str) -> str:
    return f"level {level}" if level.isdecimal() else f"{level} (level)"


def _note(spec: Spec, rows: Rows, against: str, settings: Mapping[str, Any]) -> str | None:
    if spec.task in ("over-refusal", "unsafe-compliance"):
        if settings.get("refusals") == "judge":
            return f"judged by {settings.get('judge_model')}, whose own error was not measured"
        refusals = {name: [item for item in items if item.task == spec.task] for name, items in rows.items()}
        if settings.get("refusals") == "both":
            return _joined_note(refusals, against, str(settings.get("judge_model")))
        return _detector_note(refusals, against)
    if spec.task in PUBLISHED:
        return _published_note(spec, settings)
    if spec.key == "capability":
        return _grader_note(rows, against, settings)
    return _kl_note(rows) if spec.key == "kl" else _NOTES.get(spec.key)


_NOTES = {
    "kl-sampled": "log-ratio of the sampled answers (k1): unbiased, but rare answers of a large one are seldom sampled",
    "preferences": (
        "rankings whose chosen answer gained more likelihood over the model compared with than the rejected one"
    ),
    "entropy": "minus the mean log-probability of the tokens that were sampled",
}


def _kl_note(rows: Rows) -> str:
    """Return how the KL of each model was estimated."""
    answers = {name: [item.values for item in items if item.task == "answers"] for name, items in rows.items()}
    sampled = [name for name, values in answers.items() if any("kl" in v and "kl_exact" not in v for v in values)]
    exact = (
        "at each sampled token over the whole vocabulary (unbiased, with less noise than the log-ratio of the tokens: "
        "Amini et al. 2025)"
    )
    ways = [exact] if any("kl_exact" in value for values in answers.values() for value in values) else []
    if sampled:
        ways.append(f"of {', '.join(sampled)} by the log-ratio of the sampled answers (k1: unbiased)")
    return f"from the model compared with, {'; '.join(ways)}"


def _published_note(spec: Spec, settings: Mapping[str, Any]) -> str | None:
    """Return how a published set was scored, by which judge, and its paper; None for a further value of its items."""
    if spec.value != "score":
        return None
    entry, judge = entry_of(spec.task), settings.get("judge_model")
    if entry.how == "judged":
        own = (settings.get("sets") or {}).get(spec.task, {}).get("judge_prompt")
        asked = f"asked by {own}" if own else "asked in trueup's words"
        return f"judged by {judge}, {asked}, whose own error was not measured; {entry.citation}"
    if entry.how == "refused":
        by = settings.get("refusals") or "detector"
        how = {
            "judge": f"classed by {judge}", "both": f"refusals by rules, and by {judge} where they are unsure",
        }.get(by, f"refusals by rules, not by string match as in the paper's code: {detector_error()}")  # fmt: skip
        return f"{how}; {entry.citation}"
    if entry.how == "flip":
        return f"of the answers that are right before the user objects, those that are wrong after it; {entry.citation}"
    return entry.citation


def _grader_note(rows: Rows, against: str, settings: Mapping[str, Any]) -> str | None:
    """Return the grader's error, and the differences that it would make smaller; None where no answer was written.

    An item whose answer was chosen by its likelihood is not graded by rules: its answer has no written form to err on.
    """
    if settings.get("grader"):
        return f"written answers graded by {settings['grader']}, whose own error was not measured"
    error = grader_error()
    texts = [f"written answers graded by rules: {error}; `{GRADER_COMMAND}` counts it"]
    for name, items in rows.items():
        change = paired(CAPABILITY, items, rows[against]) if against in rows and name != against else None
        if change is not None and change.value and error.slope > 0:
            texts.append(
                f"{name} minus {against} is {change.value / error.slope:+.3f} [{change.low / error.slope:+.3f}, "
                f"{change.high / error.slope:+.3f}] where the grader errs so on both models alike"
            )
    return "; ".join(texts)


def _detector_note(rows: Rows, against: str) -> str:
    """Return what the detector's verdicts are worth: its error, differences with it, replies that it is not sure of."""
    replies = [(item.answer, item.prompt) for items in rows.values() for item in items if item.answer]
    languages = Counter(language_of(answer.lower(), prompt.lower()) for answer, prompt in replies)
    kinds = Counter(classify(answer, prompt) for answer, prompt in replies)
    texts = [f"by rules: {detector_error()}"]
    for name, items in rows.items():
        difference = _with_detector_error(items, rows.get(against, [])) if name != against else None
        if difference is not None:
            texts.append(f"refusals of {name} minus {against} with the detector's error of each: {difference}")
    for language, number in languages.most_common():
        if language not in ("en", "other"):
            texts.append(f"{NAMES[language]} ({number} replies): {detector_error(language)}")
    counts = {
        "are in languages that are not measured": languages["other"],
        "refuse in part (counted as answers)": kinds["partial"],
        "are unsure: the prompt decides": kinds["unsure"],
    }
    return "; ".join(texts + [f"{n} of {len(replies)} replies {words}" for words, n in counts.items() if n])


def _joined_note(rows: Rows, against: str, judge: str) -> str:
    """Return the shares of refusals, and their differences, that rules and judge give together without bias."""
    texts = [f"by rules, where they are unsure by {judge}; {judge} also read a random part of the replies"]
    columns = {
        name: {
            item.id: (item.values["refused"], item.values.get("checked")) for item in items if "refused" in item.values
        }
        for name, items in rows.items()
    }
    for name, column in columns.items():
        if (share := _joined(list(column.values()), SHARE)) is not None:
            texts.append(f"refusals of {name} with these (prediction-powered): {share}")
        others = columns.get(against, {})
        pairs = [(column[key], others[key]) for key in column if key in others and name != against]
        differences = [
            (mine - other, None if checked is None or known is None else checked - known)
            for (mine, checked), (other, known) in pairs
        ]
        if (difference := _joined(differences, DIFFERENCE)) is not None:
            texts.append(f"{name} minus {against}: {difference}")
    return "; ".join([*texts, f"the error of {judge} itself was not measured"])


def _joined(values: Sequence[tuple[float, float | None]], bounds: tuple[float, float]) -> Estimate | None:
    """Return the prediction-powered mean of (verdict of the rules, label or None); None with fewer than two labels."""
    labelled = [(label, verdict) for verdict, label in values if label is not None]
    if len(labelled) < 2:
        return None
    labels, predicted = zip(*labelled, strict=True)
    return prediction_powered(labels, predicted, [verdict for verdict, label in values if label is None], bounds)


def _with_detector_error(ours: Sequence[Item], theirs: Sequence[Item]) -> Estimate | None:
    """Return the difference of two models' refusals with the detector's error of each; None of fewer than two items."""
    others = {item.id: item for item in theirs if "refused" in item.values}
    pairs = [(item, others[item.id]) for item in ours if item.id in others and "refused" in item.values]
    labelled = models_error()
    if len(pairs) < 2:
        return None
    return corrected_difference(
        [mine.values["refused"] for mine, _ in pairs],
        [other.values["refused"] for _, other in pairs],
        [mine.answer == other.answer for mine, other in pairs],
        [1 - part.missed.value for part in labelled],
        [part.false_alarms.value for part in labelled],
    )


def _win_rate(wins: Rows, judges: Mapping[str, str]) -> Measure:
    result = Measure(key="win-rate", title="Win rate", unit="share of answers, ties as halves", better="higher")
    notes = [f"judged by {', '.join(sorted(set(judges.values())))}; 0.5 is a draw"] if judges else []
    for name, items in wins.items():
        counted = Wins.of(items)
        if counted.estimate is not None:
            result.values[name] = counted.estimate
        if counted.missing:
            missing = (
                f"{counted.missing} of {counted.n} verdicts on {name} are missing: its interval spans all they could be"
            )
            notes.append(f"{missing} ({counted.undecided})" if counted.undecided else missing)
    result.note = "; ".join(notes) or None
    return result


_AT_EQUAL_LENGTH: dict[Method, tuple[str, str]] = {
    "joint": (
        "Length-controlled win rate",
        "effect of length and difficulty of prompts estimated over all models and taken out (Dubois et al. 2024)",
    ),
    "lone pair": (
        "Length-adjusted win rate of a lone pair",
        (
            "not the length-controlled win rate of AlpacaEval: with fewer than three models the difficulty of prompts "
            "cannot be told from an effect of length, so the interval reaches from no effect to the whole association "
            "with length, and the value assumes half of it"
        ),
    ),
}
"""Method -> title and note of the measure."""


def at_equal_length(wins: Rows) -> dict[str, LengthControlled]:
    """Return model -> its win rate at equal length, for each model with a verdict.

    Three or more models are estimated jointly, on the prompts of any of them; fewer, each as a lone pair. Verdicts of a
    judge that decides nothing are left out.
    """
    judged = {
        name: items
        for name, items in wins.items()
        if of_task(items, "win-rate", "outcome") and not Wins.of(items).undecided
    }
    if len(judged) < FEWEST_MODELS:
        return {
            name: length_controlled(*_verdicts(items, [item.id for item in items])) for name, items in judged.items()
        }
    prompts = list(dict.fromkeys(item.id for items in judged.values() for item in items))
    columns = [_verdicts(items, prompts) for items in judged.values()]
    return dict(zip(judged, jointly_length_controlled(*zip(*columns, strict=True)), strict=True))


def withheld(controlled: Mapping[str, LengthControlled]) -> dict[str, str]:
    """Return name of a win rate at equal length that is withheld -> reason."""
    return {
        f"{_AT_EQUAL_LENGTH[result.method][0]} of {name}": result.withheld
        for name, result in controlled.items()
        if result.withheld is not None
    }


def _verdicts(items: Sequence[Item], prompts: Sequence[str]) -> tuple[list[float | None], ...]:
    """Return the outcomes, our lengths and their lengths, each (N,), of N prompts; None where the model has none."""
    values = {item.id: item.values for item in items}
    return tuple([values.get(prompt, {}).get(key) for prompt in prompts] for key in ("outcome", "ours", "theirs"))


def _length_controlled(controlled: Mapping[str, LengthControlled]) -> Measure:
    methods: list[Method] = [result.method for result in controlled.values()]
    title, note = _AT_EQUAL_LENGTH[methods[0] if methods else "lone pair"]
    unjudged = [
        f"{part.unjudged} of {part.raw.n + part.unjudged} pairs of {name}"
        for name, part in controlled.items()
        if part.unjudged
    ]
    if unjudged:
        note += f"; without a verdict and left out (no gate uses this): {', '.join(unjudged)}"
    result = Measure(
        key="win-rate-lc", title=title, unit="share of answers, ties as halves", better="higher", note=note
    )
    result.values = {name: ReportNumber.of(part.rate) for name, part in controlled.items() if part.rate is not None}
    return result


def _distinct(rows: Rows) -> Measure:
    """Return the measure distinct-2 (different bigrams over all bigrams) of each model's free answers.

    Its interval comes from resampled answers.
    """
    result = Measure(
        key="distinct-2", title="Variety (distinct-2)", unit="different bigrams over all", better="neither",
        note="falls with the amount of text: compare it together with the length",
    )  # fmt: skip
    for name, items in rows.items():
        texts = [item.answer or "" for item in items if item.task == "answers"]
        if texts:
            result.values[name] = ReportNumber.of(_resampled(texts, distinct))
    return result


def _resampled(texts: Sequence[str], statistic: Callable[[Sequence[str]], float]) -> Estimate:
    """Return a statistic of a set of texts, with the spread over random halves of the set as its interval.

    A bootstrap draws texts twice, which lowers the variety of every resample; halves of the set drawn without putting
    back do not repeat, and their spread is that of the whole set but for a factor of 1 (Politis & Romano 1994).
    """
    import random

    value, half, generator = statistic(texts), max(1, len(texts) // 2), random.Random(0)
    drawn = sorted(statistic(generator.sample(list(texts), half)) for _ in range(200))
    centre = sum(drawn) / len(drawn)
    low, high = drawn[4] - centre, drawn[195] - centre
    return Estimate(value, max(0.0, min(value, value + low)), min(1.0, max(value, value + high)), len(texts))
