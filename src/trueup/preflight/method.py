"""Which stage a data file is for: by the format of its first row. Nothing here imports torch."""

from __future__ import annotations

import json
from collections.abc import Sequence

from trueup.config import STAGES, StageConfig, load_config
from trueup.data.sources.formats import recognise
from trueup.data.sources.reader import open_reader
from trueup.errors import ConfigError, DataError


def stage_for(path: str, model: str, method: str | None, settings: Sequence[str]) -> StageConfig:
    """A stage that trains on a data file, for checking and showing it; its method by the format of the first row.

    Raises:
        DataError: there is no row, or its format is not known.
        ConfigError: a setting cannot be meant.
    """
    if method is None:
        kind, more = _kind(path)
        method = kind
    else:
        kind, more = _kind_if_known(path)
    if method not in STAGES:
        raise ConfigError(f"--method {method}: there is no such stage; use one of: {', '.join(STAGES)}")
    key = STAGES[method].data_fields[0]
    given = [f"model={json.dumps(model)}", "output=runs/check", f"{key}.path={json.dumps(path)}"]
    given += [one.format(key=key) for one in more if method == kind]
    if method == "ppo" and not any(one.startswith("reward=") for one in settings):
        given.append("reward=not-made-yet.py:reward")  # looked at by nothing here
    return load_config(STAGES[method], None, [*given, *settings])


def _kind_if_known(path: str) -> tuple[str, tuple[str, ...]]:
    """The same where the format is one that can be told; else nothing more is set than the user sets."""
    try:
        return _kind(path)
    except DataError:
        return "", ()


def _kind(path: str) -> tuple[str, tuple[str, ...]]:
    """The method that rows of this format are for, and what else must be set for it."""
    kinds = {
        "ranking": ("dpo", ()),
        "verdict": ("dpo", ("loss.name=kto",)),
        "conversation": ("sft", ()),
        "pair": ("sft", ()),
        "prompt": ("ppo", ()),
        "text": ("sft", ("{key}.use=text",)),
    }
    broken: DataError | None = None
    rows = 0
    for _, found in open_reader(path, "train").entries():
        if isinstance(found, DataError):
            broken = broken or found
            continue
        rows += 1
        form = recognise(found, tuple(kinds))
        if form is None:
            break
        if form.name == "conversation" and _asks(found):
            return kinds["prompt"]
        return kinds[form.name]
    if broken is not None:
        raise broken
    if not rows:
        raise DataError(f"{path}: there are no rows in it\n  fix: check that the file was written to the end")
    fix = "name the fields messages, prompt and completion, chosen and rejected, or text; or give --method and columns"
    raise DataError(f"{path}: no rows of a known format\n  fix: {fix}")


def _asks(row: dict[str, object]) -> bool:
    """Whether messages end with the user's: a prompt."""
    messages = next((row[key] for key in ("messages", "conversations", "conversation") if key in row), None)
    last = messages[-1] if isinstance(messages, list) and messages else None
    who = last.get("role", last.get("from")) if isinstance(last, dict) else None
    return who in ("user", "human")
