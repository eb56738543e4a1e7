"""Fields of a row that change its meaning and that no format reads: a row that has them is refused, not misread."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import cast

from trueup.data.sources.records import LABEL, RATES, Record, is_nothing, says, vocabulary, words_of
from trueup.data.sources.schemas import UNDECIDED
from trueup.system.text import as_json, excerpt

MEDIA = ("image", "images", "audio", "audios", "video", "videos", "image_url", "image_urls")
_FLAGS = vocabulary("train training trained trainable loss mask masked learn learnable weight weights supervised")
_ROW_GOOD = vocabulary("valid approved accepted keep kept include included usable use enabled")
_ROW_BAD = vocabulary(
    "deleted removed rejected invalid excluded exclude ignore ignored skip skipped discard discarded dropped hidden "
    "banned blocked spam corrupt corrupted broken duplicate duplicated disabled flagged disapproved withdrawn "
    "retracted contaminated"
)
_ANSWER_GOOD = vocabulary(
    "good correct right safe harmless helpful desirable preferred liked verified passed pass success successful "
    "succeeded solved resolved truthful accurate acceptable satisfactory upvoted complete completed"
)
_ANSWER_BAD = vocabulary(
    "bad wrong incorrect unsafe harmful toxic undesirable disliked failed fail failure unsuccessful unsolved "
    "inaccurate hallucinated hallucination untruthful offensive downvoted poor low truncated incomplete unhelpful "
    "unacceptable nsfw dangerous"
)
_GOOD, _BAD = _ROW_GOOD | _ANSWER_GOOD, _ROW_BAD | _ANSWER_BAD
_TIES = frozenset({"tie", "tied", "draw"})
_STATES = vocabulary(
    "status state verdict judgement judgment outcome result decision review quality grade moderation safety evaluation "
    "label feedback annotation correctness validity assessment check tag vote flag mark winner preference "
    "harm harmfulness toxicity"
)
_SPLIT = re.compile(r"(train|test|valid|validation|val|dev|eval)([-_ ]?\w{0,10})", re.IGNORECASE)
_MASKED_ROLES = ("user", "human", "prompter", "system", "prompt")
_WORDS = {"true": True, "false": False, "yes": True, "no": False, "good": True, "bad": False, "1": True, "0": False}


def other_split(row: Mapping[str, object], split: str) -> str | None:
    """Return the split that a row names in its field `split`, if it is another than `split` ("": any); else None."""
    value = row.get("split")
    if not split or not isinstance(value, str) or _SPLIT.fullmatch(value.strip()) is None:
        return None
    return None if value.strip().lower() == split.lower() else value.strip()


def is_tie(row: Mapping[str, object], read: Collection[str]) -> bool:
    """Return True if a field of a ranking says that neither answer is better: tie: true, status: tie.

    `read` are the fields that the row's format reads itself.
    """
    fields = {key: value for key, value in row.items() if key not in read}
    named = (_verdict(value) for key, value in fields.items() if says(key, _TIES))
    states = (value for key, value in fields.items() if isinstance(value, str) and says(key, _STATES))
    return any(named) or any(state.strip().lower() in UNDECIDED - {"skip", "skipped"} for state in states)


def check_meaning(
    record: Record, want: str, *, judged: bool, imitated: bool, read: Collection[str] = frozenset()
) -> None:
    """Check that no field changes the meaning of a row without being read.

    Args:
        record: the row.
        want: the kind of row to make, e.g. "conversation".
        read: the fields that the row's format reads itself.
        judged: refuse rows with a verdict even if it is good; False where bad rows are left out (skip: [undesirable]).
        imitated: True if every answer of these rows is imitated (SFT), so that a verdict or a score matters.

    Raises:
        DataError: a field holds pictures or sound, a weight, or a verdict or score of an answer that is imitated.
    """
    row = record.row
    if isinstance(row.get("split"), str):
        record.read.add("split")
    for key, value in row.items():
        if (key in MEDIA and _is_media(value)) or _is_file(value):
            fix = f"take such rows out, or set ignore: [{key}] if the texts can do without"
            raise record.fail(f"{excerpt(key)} holds pictures, sound or video", fix, as_json(value), kind="media")
    if want != "prompt":
        _check_weights(record)
    if imitated:
        _check_verdicts(record, judged=judged)
    for key, value in row.items():
        if key not in read and _is_bad(key, value, of_answer=imitated):
            problem = f"{excerpt(key)} is {as_json(value)}: the row is not to be used, or its answer is bad"
            fix = f"remove the row, or set ignore: [{key}]; to learn from bad answers too, train KTO"
            raise record.fail(problem, fix if imitated else fix.partition(";")[0], kind="undesirable")


def _is_bad(key: str, value: object, *, of_answer: bool) -> bool:
    """Return True if a field says that a row is not to be used: deleted: true, valid: false, status: rejected.

    With `of_answer` the field may also say that the row's answer is bad: is_safe: false, quality: poor.
    """
    good, bad = (_GOOD, _BAD) if of_answer else (_ROW_GOOD, _ROW_BAD)
    verdict = _verdict(value)
    if verdict is not None and says(key, good, bad):
        words = set(words_of(key))
        return verdict == bool(words & bad) if not (words & good and words & bad) else False
    if not isinstance(value, str) or not says(key, _STATES):
        return False
    words = words_of(value)
    if len(words) > 1 and words[0] in ("not", "no", "non"):
        return bool(set(words[1:]) & good)
    return len(words) <= 3 and bool(set(words) & bad)


def _is_media(value: object) -> bool:
    if isinstance(value, list):
        return any(_is_media(item) for item in cast("list[object]", value))
    return not is_nothing(value) and not isinstance(value, bool | int | float)


def _is_file(value: object) -> bool:
    """Return True for the content of a file, as `datasets` gives pictures and sound."""
    return isinstance(value, dict) and isinstance(value.get("bytes"), bytes)


def _check_weights(record: Record) -> None:
    for key, written in record.row.items():
        if not says(key, _FLAGS):
            continue
        value, masks = _as_number(written), {"mask", "masked"} & set(words_of(key))
        numbers = cast("list[object]", written) if isinstance(written, list) else []
        if numbers and all(isinstance(item, bool | int | float) for item in numbers):
            fix = f'say it in the messages, with "train": true or false, or set ignore: [{key}]'
            raise record.fail(f"{excerpt(key)} says which parts to train, and nothing reads it", fix, as_json(written))
        if value is None or ("loss" in words_of(key) and not masks and value not in (0, 1)):  # a loss that was logged
            continue
        record.read.add(key)
        if value == 0 and not (masks and "loss" not in words_of(key)):
            fix = f"remove the row, or set ignore: [{key}]"
            raise record.fail(
                f"{excerpt(key)} is {as_json(written)}: the row is not to be trained", fix, kind="untrained"
            )
        if value != 1:
            fix = f"weigh whole files by data.weight, or set ignore: [{key}]"
            raise record.fail(f"{excerpt(key)} is {as_json(written)}, and single rows have no weight", fix)
        if masks and "loss" not in words_of(key):
            fix = f"remove the rows that are not to be trained, and set ignore: [{key}]"
            raise record.fail(f"{excerpt(key)} is {as_json(written)}, which may say that the row is not trained", fix)
    masked = record.row.get("mask")
    if isinstance(masked, str) and masked and _as_number(masked) is None:  # NeMo: the role whose messages are untrained
        record.read.add("mask")
        if masked.lower() not in _MASKED_ROLES:
            fix = "only the assistant's messages are trained; set ignore: [mask] to train them all"
            raise record.fail(f'"mask" leaves out the messages of {excerpt(masked)}', fix)


def _as_number(value: object) -> bool | int | float | None:
    """Return a number or a truth value, also one written as text, as all cells of a CSV file are; else None."""
    if isinstance(value, str):
        text = value.strip().lower()
        return float(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else {"true": True, "false": False}.get(text)
    return value if isinstance(value, bool | int | float) else None


def _check_verdicts(record: Record, *, judged: bool) -> None:
    for key in LABEL:
        good = _verdict(record.row.get(key))
        if good is None:
            continue
        record.read.add(key)
        if judged or not good:
            problem = f"{excerpt(key)} says if the answer is good, and SFT would train on the bad ones too"
            fix = f"train KTO on both kinds; set ignore: [{key}] if it is no verdict"
            raise record.fail(problem, fix, as_json(record.row[key]), kind="undesirable")
    for key, written in record.row.items():
        value = _as_number(written) if says(key, RATES) else None
        if value is not None and not isinstance(value, bool):
            problem = f"{excerpt(key)} says how good the answer is, and SFT would train on all alike"
            fix = f"keep the good rows in a file of their own, and set ignore: [{key}] for it"
            raise record.fail(problem, fix, as_json(record.row[key]))


def _verdict(value: object) -> bool | None:
    """Return the verdict that a value expresses: true and false, 1 and 0, good and bad; None if it expresses none."""
    if isinstance(value, bool):
        return value
    return _WORDS.get(str(value).strip().lower()) if isinstance(value, int | float | str) else None
