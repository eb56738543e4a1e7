"""Fields of a row that change its meaning and that no format reads: a row that has them is refused, not misread."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

from trueup.data.sources.records import LABEL, Record, is_nothing
from trueup.system.text import as_json, excerpt

MEDIA = ("image", "images", "audio", "audios", "video", "videos", "image_url", "image_urls")
WEIGHTS = ("weight", "sample_weight", "loss_weight", "train", "trainable", "loss_mask")
VERDICTS = (
    *LABEL, "kto_label", "desirable", "is_desirable", "accepted", "is_accepted", "approved", "is_good", "thumbs_up",
    "upvoted",
)  # fmt: skip
SCORES = ("score", "rating", "reward")
_SPLIT = re.compile(r"(train|test|valid|validation|val|dev|eval)([-_ ]?\w{0,10})", re.IGNORECASE)
_MASKED_ROLES = ("user", "human", "prompter", "system", "prompt")
_WORDS = {"true": True, "false": False, "yes": True, "no": False, "good": True, "bad": False, "1": True, "0": False}


def other_split(row: Mapping[str, object], split: str) -> str | None:
    """Return the split that a row names in its field `split`, if it is another than `split` ("": any); else None."""
    value = row.get("split")
    if not split or not isinstance(value, str) or _SPLIT.fullmatch(value.strip()) is None:
        return None
    return None if value.strip().lower() == split.lower() else value.strip()


def check_meaning(record: Record, want: str, *, judged: bool, imitated: bool) -> None:
    """Check that no field changes the meaning of a row without being read.

    Args:
        record: the row.
        want: the kind of row to make, e.g. "conversation".
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


def _is_media(value: object) -> bool:
    if isinstance(value, list):
        return any(_is_media(item) for item in cast("list[object]", value))
    return not is_nothing(value) and not isinstance(value, bool | int | float)


def _is_file(value: object) -> bool:
    """Return True for the content of a file, as `datasets` gives pictures and sound."""
    return isinstance(value, dict) and isinstance(value.get("bytes"), bytes)


def _check_weights(record: Record) -> None:
    for key in WEIGHTS:
        value = _as_number(record.row.get(key))
        if value is None:
            continue
        record.read.add(key)
        if value == 0:
            fix = f"remove the row, or set ignore: [{key}]"
            raise record.fail(
                f"{excerpt(key)} is {as_json(record.row[key])}: the row is not to be trained", fix, kind="untrained"
            )
        if value != 1:
            fix = f"weigh whole files by data.weight, or set ignore: [{key}]"
            raise record.fail(f"{excerpt(key)} is {as_json(record.row[key])}, and single rows have no weight", fix)
    masked = record.row.get("mask")
    if isinstance(masked, str) and masked:  # NeMo: the role whose messages are not trained
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
    for key in VERDICTS:
        good = _verdict(record.row.get(key))
        if good is None:
            continue
        record.read.add(key)
        if judged or not good:
            problem = f"{excerpt(key)} says if the answer is good, and SFT would train on the bad ones too"
            fix = f"train KTO on both kinds; set ignore: [{key}] if it is no verdict"
            raise record.fail(problem, fix, as_json(record.row[key]), kind="undesirable")
    for key in SCORES:
        value = _as_number(record.row.get(key))
        if value is not None and not isinstance(value, bool):
            problem = f"{excerpt(key)} says how good the answer is, and SFT would train on all alike"
            fix = f"keep the good rows in a file of their own, and set ignore: [{key}] for it"
            raise record.fail(problem, fix, as_json(record.row[key]))


def _verdict(value: object) -> bool | None:
    """Return the verdict that a value expresses: true and false, 1 and 0, good and bad; None if it expresses none."""
    if isinstance(value, bool):
        return value
    return _WORDS.get(str(value).strip().lower()) if isinstance(value, int | float | str) else None
