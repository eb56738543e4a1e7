"""Choose the samples of the report: prompts of every task with each model's answer, largest gains and losses first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trueup.evaluation.items import Item
from trueup.evaluation.published.table import PUBLISHED
from trueup.report.report_schema import ReportAnswer, ReportSample

Key = tuple[str, str]
"""Task and id."""
SHOWN = {"capability": 40, "over-refusal": 25, "unsafe-compliance": 15, "answers": 40}
"""Task -> most items that are shown: a report must stay readable, and small enough to mail."""
OF_A_SET = 10
"""Most items of each published set that are shown."""
DECIDES = {
    "capability": ("right",),
    "over-refusal": ("answered",),
    "unsafe-compliance": ("refused",),
    "answers": ("gold", "reward"),
}
"""Task -> values of which more is better; the change of a sample is taken of the first that was measured.

Of published sets it is the score, in whose direction the set says what is better.
"""


def samples(rows: Mapping[str, Sequence[Item]], against: str) -> list[ReportSample]:
    """Return the prompts to show with all models' answers, task by task.

    In each task gains and losses of the last model against the model `against` come first, in turns; then what did not
    change.

    Args:
        rows: model -> its evaluated items, in the order of the pipeline.
        against: the model that others are compared with.
    """
    by_id = {name: {(item.task, item.id): item for item in items} for name, items in rows.items()}
    last = list(rows)[-1]
    result: list[ReportSample] = []
    for task, most in {**SHOWN, **dict.fromkeys(PUBLISHED, OF_A_SET)}.items():
        keys = [key for key, item in by_id.get(against, {}).items() if key[0] == task and item.answer is not None]
        changes = [_sample(key, by_id, against, last) for key in keys]
        result += _extremes(changes)[:most]
    return result


def _sample(
    key: tuple[str, str], by_id: Mapping[str, Mapping[tuple[str, str], Item]], against: str, last: str
) -> ReportSample:
    item = by_id[against][key]
    answers = {name: _answer(items[key]) for name, items in by_id.items() if key in items}
    by = next((name for name in DECIDES.get(key[0], ("score",)) if name in item.values), None)
    change = None
    if by is not None and last in answers and by in answers[last].scores:
        change = answers[last].scores[by] - answers[against].scores[by]
    return ReportSample(
        task=key[0], topic=item.topic, prompt=item.prompt, expected=item.expected, answers=answers, change=change,
        by=by,
    )  # fmt: skip


def _answer(item: Item) -> ReportAnswer:
    tokens = item.values.get("length")
    scores = {name: value for name, value in item.values.items() if name not in ("length", "complied", "answered")}
    if "answered" in item.values:
        scores["answered"] = item.values["answered"]
    if tokens is not None:
        scores["length"] = tokens
    return ReportAnswer(text=item.answer or "", tokens=None if tokens is None else int(tokens), scores=scores)


def _extremes(samples: Sequence[ReportSample]) -> list[ReportSample]:
    """Return samples in the order largest gain, largest loss, next gain, ..., and last those that did not change."""
    gains = sorted((sample for sample in samples if (sample.change or 0) > 0), key=lambda sample: -(sample.change or 0))
    losses = sorted((sample for sample in samples if (sample.change or 0) < 0), key=lambda sample: sample.change or 0)
    mixed: list[ReportSample] = []
    for index in range(max(len(gains), len(losses))):
        mixed += [*gains[index : index + 1], *losses[index : index + 1]]
    return mixed + [sample for sample in samples if not sample.change]
