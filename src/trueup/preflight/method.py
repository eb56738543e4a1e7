"""Find the training method (sft, dpo, ppo) that a data file is for, by the format of its first row.

The row is read by the settings of the data section (format, columns, ignore, use), as the stage will read it.

Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import ValidationError

from trueup.config import STAGES, DataConfig, StageConfig, load_config
from trueup.config.yamlfile import Document, apply_override
from trueup.data.rendering.messages import Origin, row_error
from trueup.data.sources.formats import answers_beside, recognise
from trueup.data.sources.parser import as_yaml, fix_of_names, suggested
from trueup.data.sources.reader import open_reader
from trueup.data.sources.records import LABEL, rename_fields
from trueup.errors import ConfigError, DataError
from trueup.system.text import listed

READ_BY = ("format", "columns", "ignore", "use", "split")
"""Keys of a data section that decide how its first row is read."""


def stage_for(path: str, model: str, method: str | None, settings: Sequence[str]) -> StageConfig:
    """Return the configuration of a stage that trains on a data file, so that the file can be checked or shown.

    Args:
        path: the data file.
        model: the model whose tokenizer is used.
        method: sft, reward, dpo or ppo; None lets the format of the first row decide.
        settings: further settings of the stage, `key=value`.

    Raises:
        DataError: there is no row, or its format is not known.
        ConfigError: a setting is wrong.
    """
    key, section = _section(path, settings)
    if method is None and key == "prompts":
        method = "ppo"
    kind, kind_settings = ("sft", ())  # of a wrong section, whose keys `load_config` explains
    if section is not None:
        kind, kind_settings = _kind(path, section) if method is None else _kind_if_known(path, section)
    method = method or kind
    if method not in STAGES:
        raise ConfigError(f"--method {method}: not a method; use one of: {', '.join(STAGES)}")
    key = STAGES[method].data_fields[0]
    defaults = [f"model={json.dumps(model)}", "output=runs/check", f"{key}.path={json.dumps(path)}"]
    defaults += [setting.format(key=key) for setting in kind_settings if method == kind]
    if method == "ppo" and not any(setting.startswith("reward=") for setting in settings):
        defaults.append(
            "reward=not-made-yet.py:reward"
        )  # the configuration requires a reward; checking and showing use none
    return load_config(STAGES[method], None, [*defaults, *settings])


def _section(path: str, settings: Sequence[str]) -> tuple[str, DataConfig | None]:
    """Return the key of the training data that the settings name (data, prompts), and the section that they give it.

    The section is None if it has a wrong value, of which the stage's configuration says more.
    """
    document = Document("settings")
    for setting in settings:
        apply_override(document, setting)
    key = "prompts" if "prompts" in document.data else "data"
    given = document.data.get(key)
    values = {name: value for name, value in given.items() if name in READ_BY} if isinstance(given, dict) else {}
    try:
        return key, DataConfig.model_validate({"path": path, **values})
    except ValidationError:
        return key, None


def _kind_if_known(path: str, section: DataConfig) -> tuple[str, tuple[str, ...]]:
    """Return the training method (sft, dpo, …) that a data file fits and the settings it needs, as `_kind` does.

    Of a file whose format is not known it is ("", ()), where `_kind` raises an error.
    """
    try:
        return _kind(path, section)
    except DataError:
        return "", ()


def _kind(path: str, section: DataConfig) -> tuple[str, tuple[str, ...]]:
    """Return the training method that a file's rows are for, by their format, and further settings that it needs.

    Raises:
        DataError: there is no row, or its format is not known.
    """
    kinds: dict[str, tuple[str, tuple[str, ...]]] = {
        "ranking": ("sft" if section.use == "chosen" else "dpo", ()),
        "verdict": ("dpo", ("loss.name=kto",)),
        "conversation": ("sft", ()),
        "pair": ("sft", ()),
        "prompt": ("ppo", ()),
        "text": ("sft", ("{key}.use=text",)),
    }
    wanted = {"chosen": ("ranking",), "text": ("text",)}.get(section.use, tuple(kinds))
    broken: DataError | None = None
    for origin, row in open_reader(path, section.split).entries():
        if isinstance(row, DataError):
            broken = broken or row
            continue
        fields = rename_fields(row, section.columns or {}, origin)
        unread = {*(section.ignore or ()), *(key for key in LABEL if fields.get(key) is None)}
        fields = {key: value for key, value in fields.items() if key not in unread}
        row_format = recognise(fields, wanted, section.format or "auto")
        if row_format is None:
            raise _unknown(origin, fields)
        kind = "prompt" if row_format.name == "conversation" and _is_prompt(fields) else row_format.gives
        read = {*row_format.keys.values(), *OPTIONAL}
        if kind == "prompt" and section.format is None and (others := answers_beside(fields, read)):
            raise _ambiguous(origin, fields, others)
        return kinds[kind]
    if broken is not None:
        raise broken
    raise DataError(f"{path}: there are no rows in it\n  fix: check that the file was written to the end")


OPTIONAL = ("tools", "functions", "system", "system_prompt")
"""Fields that a row of any kind may have besides its question."""


def _unknown(origin: Origin, fields: dict[str, object]) -> DataError:
    """Return the error for a file in whose first row no known format was found."""
    want = "preference" if "chosen" in suggested(fields, "preference") else None
    more = ", and --method dpo" if want else ", or give --method"
    return row_error(origin, f"no known format: the row has {listed(fields)}", fix_of_names(fields, want) + more)


def _ambiguous(origin: Origin, fields: dict[str, object], others: list[str]) -> DataError:
    """Return the error for rows with a question and with texts that may be its answers."""
    sides = suggested(fields, "preference")
    if {"chosen", "rejected"} <= sides.keys():
        columns = f"{{chosen: {as_yaml(sides['chosen'])}, rejected: {as_yaml(sides['rejected'])}}}"
        named = f"for rankings data.columns='{columns}'"
    else:
        answer = next((key for key in others if isinstance(fields[key], str)), None)
        named = f"name it: data.columns='{{response: {as_yaml(answer)}}}'" if answer else "write it at response"
    problem = f"the row has a question and {listed(others)}, and it is not known which is the answer"
    return row_error(origin, problem, f"{named}; or --method ppo to use the questions alone")


def _is_prompt(row: dict[str, object]) -> bool:
    """Return True if a conversation's last message is the user's, so that the row is a prompt without an answer."""
    messages = next((row[key] for key in ("messages", "conversations", "conversation") if key in row), None)
    last = messages[-1] if isinstance(messages, list) and messages else None
    role = last.get("role", last.get("from")) if isinstance(last, dict) else None
    return role in ("user", "human")
