"""Tokenize and check all data of a training stage, for `trueup check` and before every training.

This needs the tokenizer but no weights: a wrong row is reported before the model loads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueup.config import DataConfig, DpoConfig, PpoConfig, StageConfig, TrainDataConfig
from trueup.data.rendering.messages import Message, Origin
from trueup.data.rendering.renderer import Renderer
from trueup.data.row_kinds import section_kinds
from trueup.data.sources.calls import call_problems
from trueup.data.sources.columns import Columns, read_columns, taken
from trueup.data.tokens.build import Ticker, tokenize
from trueup.data.tokens.findings import (
    Finding,
    contradicting,
    duplicates,
    overlapping,
    reading_findings,
    row_findings,
    template_findings,
)
from trueup.data.tokens.fitting import fit_examples, fit_prompts
from trueup.data.tokens.near import overlap
from trueup.data.tokens.record import Flag
from trueup.data.tokens.sampler import epoch_rows
from trueup.data.tokens.select import Examples, Selected, all_rows, limit_rows, split
from trueup.data.tokens.store import Tokenized, read_sealed, write_sealed
from trueup.data.tokens.survey import Survey, contradictions, duplicate_rows, survey
from trueup.errors import DataError
from trueup.system.files import split_event
from trueup.system.text import excerpt

Reading = Callable[[str], AbstractContextManager[Ticker]]
"""A function that, given the name of a section, shows the progress of reading it."""


@dataclass(slots=True)
class Prepared:
    """The data of a training stage, tokenized and checked.

    Attributes:
        train: the rows to train on, or PPO's prompts.
        weights: how often a row of each train section is seen in an epoch.
        held_out: the rows to evaluate on, if any.
        mix: SFT rows that are mixed into another stage's training, if any.
        counts: {section: {"read", "used", "dropped" and so on: counts of its rows, which add up}}.
        findings: results of the data check.
        collect: record rows that are too long as a finding, and do not raise.
        columns: the fields of rows that the stage's rewards take, by the rows' places.
    """

    train: Examples
    weights: tuple[float, ...]
    held_out: Examples | None
    mix: Examples | None
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    collect: bool = False
    columns: Columns = field(default_factory=dict)

    @property
    def trained(self) -> list[Examples]:
        """The rows that train: the stage's own, and those of `mix`."""
        return [self.train] if self.mix is None else [self.train, self.mix]

    @property
    def longest(self) -> int:
        """Number of tokens of the longest row of all sections, prompt included."""
        return max(rows.longest for rows in (self.train, self.held_out, self.mix) if rows is not None)

    @classmethod
    def empty(cls, findings: Sequence[Finding]) -> Prepared:
        """Return the result for data that cannot be read at all: no rows, only findings."""
        return cls(Examples([], []), (), None, None, findings=list(findings))

    @property
    def fingerprints(self) -> dict[str, str]:
        """{section: a hash of its tokens, texts and labels}; the hash changes when a row or the tokenizer does."""
        return {name: str(counts["fingerprint"]) for name, counts in self.counts.items()}


@dataclass(slots=True)
class _Section:
    name: str
    config: DataConfig
    rows: Tokenized
    train: Selected
    held_out: Selected


def prepare(
    config: StageConfig, renderer: Renderer, *, workers: int = 1, reading: Reading = lambda _: nullcontext(_silent),
    collect: bool = False, stores: Mapping[str, str] = MappingProxyType({}),
) -> Prepared:  # fmt: skip
    """Tokenize (or take from the cache), select, apply `max_length`, and check the rows of a training stage.

    Args:
        config: the configuration of the stage.
        renderer: turns messages into tokens of the stage's tokenizer.
        workers: the number of processes that may tokenize rows.
        reading: shows the progress.
        stores: {path: path to read instead}, so that several processes read a vote store as of the same event.
        collect: make rows that are too long a finding, and do not raise, so that `trueup check` lists everything.

    Raises:
        DataError: a row cannot be used, or rows are too long. Faults that can be allowed are findings, not raised.
        ModelError: the chat template cannot be used for these rows.
    """
    sections = [
        _open(config, place, _as_of_event(data, stores), kinds, renderer, workers, reading)
        for place, data, kinds in section_kinds(config)
    ]
    trained = [section for section in sections if isinstance(section.config, TrainDataConfig)]
    others = {section.name: section for section in sections if section not in trained}
    _check_kinds(trained)
    weights = tuple(section.weight for section in config.train_sections)
    result = Prepared(Examples([], []), weights, None, None, collect=collect)
    main, trains = config.data_fields[0], not isinstance(config, PpoConfig)
    train = Examples([section.rows for section in trained], [section.train for section in trained])
    result.train = _use(result, config, main, train, trained, renderer, trains=trains)
    for section, rows, weight in zip(trained, result.train.rows, weights, strict=True):
        if not epoch_rows(len(rows), weight):
            raise DataError(_unseen(section, len(rows), weight))
    has_eval = "eval" in others
    measured = [others["eval"]] if has_eval else [section for section in trained if len(section.held_out)]
    if measured:
        rows = [section.train if has_eval else section.held_out for section in measured]
        held_out = Examples([section.rows for section in measured], rows)
        result.held_out = _use(result, config, "eval", held_out, measured, renderer, trains=trains)
    if "mix" in others:
        mixed = others["mix"]
        result.mix = _use(result, config, "mix", Examples([mixed.rows], [mixed.train]), [mixed], renderer, trains=True)
    learned = [*zip(trained, result.train.rows, strict=True)]
    if result.mix is not None:
        learned.append((others["mix"], result.mix.rows[0]))
    result.findings += _overlaps(config, result.held_out, measured, learned)
    result.columns = read_columns(config)
    result.findings += _column_findings(config, result.columns, result.train, result.held_out)
    return result


def _as_of_event(data: DataConfig, stores: Mapping[str, str]) -> DataConfig:
    return data.model_copy(update={"path": stores[data.path]}) if data.path in stores else data


def _open(
    config: StageConfig, place: tuple[str | int, ...], data: DataConfig, kinds: Sequence[Any], renderer: Renderer,
    workers: int, reading: Reading,
) -> _Section:  # fmt: skip
    """Tokenize one data section, and choose the rows to train on and to hold out by its limit and holdout."""
    name = str(place[0]) if len(place) == 1 or place[-1] == "data" else f"{place[0]}[{place[1]}]"
    with reading(name) as tick:
        rows = tokenize(
            data, kinds, renderer, allow_empty="empty-response" in config.allow, workers=workers, tick=tick
        )  # fmt: skip
    selected = all_rows(rows)
    if not isinstance(data, TrainDataConfig):
        return _Section(name, data, rows, selected, selected[:0])
    selected = limit_rows(rows, selected, data.limit, config.seed)
    sides = split(rows, selected, data.holdout, config.seed)
    for side, problem in ((sides.train, "leaves no row to train on"), (sides.held_out, "holds out no row")):
        if data.holdout and not len(side):
            raise DataError(
                f"{data.path}: holdout={data.holdout:g} of {len(selected)} rows {problem}\n"
                "  fix: take another share or seed (near-duplicates stay together), or give rows in eval.data"
            )
    return _Section(name, data, rows, sides.train, sides.held_out)


def _use(
    result: Prepared, config: StageConfig, name: str, examples: Examples, sections: Sequence[_Section],
    renderer: Renderer, *, trains: bool,
) -> Examples:  # fmt: skip
    """Return the rows to use after `max_length` is applied, and add their counts and findings to `result`."""
    try:
        used, long_rows = _fit(config, name, examples)
    except DataError as error:
        if not result.collect:
            raise
        result.findings.append(Finding("over-length", "error", name, str(error).removeprefix(f"{name}: ")))
        used, long_rows = examples, {}
    numbers = survey(used, renderer.stop_ids)
    if numbers.flags[Flag.UNTRAINED] and trains:
        place = numbers.places[Flag.UNTRAINED][0]
        raise DataError(f"{place}: no token of this row is trained; give the row an answer that is not empty")
    result.counts[name] = _counts(config, sections, examples, used) | long_rows
    result.counts[name]["fingerprint"] = "+".join(section.rows.fingerprint for section in sections)
    if trains:
        result.counts[name] |= {"trained_tokens": numbers.trained, "end_trained": numbers.flags[Flag.ENDS]}
    spelled = _details(used, numbers, renderer)
    for section in sections:
        if name != "eval" or not isinstance(section.config, TrainDataConfig):
            result.findings += reading_findings(section.name, _unread(section.rows.meta, config))
    result.findings += row_findings(name, numbers, config.allow, trains=trains, spelled=spelled)
    result.findings += template_findings(
        name, numbers, train_thinking=renderer.train_thinking, variables=renderer.thinking_variables
    )
    for section in sections:
        if name != "eval" or not isinstance(section.config, TrainDataConfig):  # of a holdout, its section has reported
            result.findings += _repeated(section)
    return used


def _unread(meta: Mapping[str, Any], config: StageConfig) -> dict[str, Any]:
    """Return the counts of a source without the fields that the stage's rewards read."""
    read = {name for _, _, columns in taken(config) for name in columns}
    return {**meta, "unread": {key: count for key, count in meta["unread"].items() if key not in read}}


def _details(examples: Examples, numbers: Survey, renderer: Renderer) -> dict[Flag, str]:
    """Return, for messages, what the first row with a flag has, e.g. its control tokens (at most three)."""
    details: dict[Flag, str] = {}
    if numbers.flags[Flag.SPECIAL]:
        spelled = renderer.control_texts(_first_with(examples, Flag.SPECIAL))
        details[Flag.SPECIAL] = ", ".join(spelled[:3])
    if numbers.flags[Flag.WRONG_CALL]:
        details[Flag.WRONG_CALL] = next(call_problems(_first_with(examples, Flag.WRONG_CALL)), "")
    if numbers.flags[Flag.UNKNOWN]:
        answers = renderer.unknown_answers(_first_with(examples, Flag.UNKNOWN))
        details[Flag.UNKNOWN] = excerpt(answers[0]) if answers else ""
    if numbers.flags[Flag.CHANGED]:
        changed = renderer.changed_texts(_first_with(examples, Flag.CHANGED))
        details[Flag.CHANGED] = " becomes ".join(map(excerpt, changed[0])) if changed else ""
    return details


def _first_with(examples: Examples, flag: Flag) -> list[Message]:
    """Return the messages of the first row that has a flag."""
    seen, first = 0, list[int]()

    def visit(records: NDArray[np.void]) -> None:
        nonlocal seen
        if not first:
            first.extend((np.flatnonzero(records["flags"] & np.uint32(flag))[:1] + seen).tolist())
        seen += len(records)

    examples.map_records(visit)
    part, row = examples.place(first[0])
    return [Message.restored(values) for answers in part.parts(row) for values in answers]


def _fit(config: StageConfig, name: str, examples: Examples) -> tuple[Examples, dict[str, Any]]:
    if isinstance(config, PpoConfig) and name != "mix":
        return fit_prompts(examples, config.max_length, config.rollouts.max_new_tokens, config.over_length)
    return fit_examples(name, examples, config.max_length, config.over_length)


def _counts(config: StageConfig, sections: Sequence[_Section], examples: Examples, used: Examples) -> dict[str, Any]:
    """Return counts of the rows of one or more sections, for the report on the data.

    `read` is the sum of `used`, `dropped`, `unselected` and the rows left out as too long. Other keys are blank lines,
    notes, fields that nothing reads with the number of rows that hold them, the events of vote stores and the number of
    held-out rows.
    """
    metas = [_unread(section.rows.meta, config) for section in sections]
    read = sum(meta["read"] for meta in metas)
    dropped = [drop for meta in metas for drop in meta["dropped"]]
    counts: dict[str, Any] = {
        "read": read,
        "used": len(used),
        "dropped": dropped,
        "unselected": read - len(dropped) - len(examples),
        "blank": sum(meta["blank"] for meta in metas),
        "notes": [note for meta in metas for note in meta["notes"]],
        "unused": sorted({key for meta in metas for key in meta["unread"]}),
        "unread": dict(sum((Counter(meta["unread"]) for meta in metas), Counter[str]())),
    }
    events = {
        split_event(section.config.path)[0]: section.rows.event
        for section in sections
        if section.rows.event is not None
    }
    if events:
        counts["events"] = events
    if len(sections) > 1:
        counts["sections"] = [
            {"path": section.config.path, "rows": len(rows)}
            for section, rows in zip(sections, examples.rows, strict=True)
        ]
    held = sum(len(section.held_out) for section in sections)
    return counts | ({"held_out": held} if held else {})


def _repeated(section: _Section) -> list[Finding]:
    """Return the findings on duplicates and contradictions of a section.

    They are cached next to its tokens, because a million rows take seconds.
    """
    path, want = section.rows.folder / "repeated.json", section.rows.meta["want"]
    try:
        numbers = read_sealed(path)
    except (OSError, ValueError):
        near, exact = duplicate_rows(section.rows)
        count, shown = contradictions(section.rows) if want in ("preference", "labelled") else (0, [])
        numbers = {"near": near, "exact": exact, "contradicting": count, "shown": shown}
        with suppress(OSError):  # another user's cache may be read-only
            write_sealed(path, numbers)
    rows = len(section.rows)
    return [
        duplicates(section.name, numbers["near"], numbers["exact"], rows),
        *contradicting(section.name, numbers["contradicting"], numbers["shown"], labelled=want == "labelled"),
    ]


def _check_kinds(trained: Sequence[_Section]) -> None:
    """Check that the training data are either all rankings or all labelled completions (KTO), the latter not held out.

    Raises:
        DataError: sections of both kinds are mixed, or labelled rows are held out.
    """
    labelled = [section for section in trained if section.rows.meta["want"] == "labelled"]
    if 0 < len(labelled) < len(trained):
        raise DataError("data: rankings and labelled completions in one mixture\n  fix: give data of one kind")
    for section in labelled:
        if len(section.held_out):
            problem = "holdout of labelled completions, but KTO is measured on rankings"
            raise DataError(f"{section.name}: {problem}\n  fix: give rankings in eval.data, and no holdout")


def _unseen(section: _Section, rows: int, weight: float) -> str:
    if not rows:
        return (
            f"{section.name}: no row of {section.config.path} is left\n  fix: raise max_length, or remove the section"
        )
    problem = f"weight={weight:g} of its {rows} rows is less than one row an epoch: none would be seen"
    return f"{section.name}: {problem}\n  fix: give it a weight of at least {1 / rows:.2g}"


def _overlaps(
    config: StageConfig, held_out: Examples | None, measured: Sequence[_Section],
    learned: Sequence[tuple[_Section, Selected]],
) -> list[Finding]:  # fmt: skip
    """Return the fault that held-out rows are trained on too, if any are.

    The rows that were held out of a section are not compared with the rest of it, because near-duplicates stay
    together.
    """
    if held_out is None:
        return []
    exact = near = 0
    shown: list[str] = []
    for section, rows in zip(measured, held_out.rows, strict=True):
        for other, others in learned:
            if section is not other:
                shared = overlap(section.rows, rows, other.rows, others)
                exact, near = exact + shared.exact, near + shared.near
                shown += [_same_row(section.rows.origin(row), other.rows.origin(match)) for row, match in shared.shown]
    return overlapping("eval", exact, near, len(held_out), shown, config.allow)


def _same_row(held_out: Origin, trained: Origin) -> str:
    """Return two places as one short text, "a.jsonl:3 = b.jsonl:7"; the second name is left out if it is the same."""
    a, b = Path(held_out.file).name, Path(trained.file).name
    if a == b and held_out.file != trained.file:
        return f"{held_out} = {trained}"
    return f"{a}:{held_out.line} = {b}:{trained.line}" if a != b else f"{a}:{held_out.line} = line {trained.line}"


def _column_findings(
    config: StageConfig, columns: Columns, train: Examples, held_out: Examples | None
) -> Iterator[Finding]:
    """Yield an error for each reward that takes a column which rows that it scores lack."""
    for key, spec, named in taken(config):
        sides = [(config.data_fields[0], train)] if isinstance(config, PpoConfig) and key.startswith("reward") else []
        sides += [("eval", held_out)] if held_out is not None and isinstance(config, PpoConfig | DpoConfig) else []
        required = {name for name, needed in named.items() if needed}
        for section, rows in sides:
            places = [str(rows.origin(index)) for index in range(len(rows))]
            lacking = {place: names for place in places if (names := required - columns.get(place, {}).keys())}
            if lacking:
                names = sorted(set[str]().union(*lacking.values()))
                yield _lacks(section, f"{key}: {spec}", names, [*lacking], len(places))


def _lacks(section: str, reward: str, names: Sequence[str], lacking: Sequence[str], rows: int) -> Finding:
    plural = "s" * (len(names) > 1)
    text = f"{reward} takes the column{plural} {' and '.join(names)}, which {len(lacking):,} of {rows:,} rows lack"
    fix = f"add {' and '.join(names)} to these rows; or give the parameter{plural} a default: a number for a setting, "
    fix += "None where rows may lack it"
    return Finding("missing-column", "error", section, text, fix, tuple(lacking[:10]), {"rows": len(lacking)})


def _silent(_rows: int, _share: float) -> None:
    """Ignore the progress (the default where none is shown)."""
