"""All data of a stage as tokens, checked: what `trueup check` shows, and what every stage does before it trains.

Needs a tokenizer, no weights: a wrong row is said before the model loads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueup.config import DataConfig, PpoConfig, StageConfig, TrainDataConfig
from trueup.data.rendering.messages import Message, Origin
from trueup.data.rendering.renderer import Renderer
from trueup.data.tokens import findings as found
from trueup.data.tokens.build import Ticker, tokenize
from trueup.data.tokens.findings import Finding
from trueup.data.tokens.fitting import fitted, fitted_prompts
from trueup.data.tokens.near import overlap
from trueup.data.tokens.record import Flag
from trueup.data.tokens.sampler import epoch_rows
from trueup.data.tokens.select import Examples, Selected, everything, limited, split
from trueup.data.tokens.store import Tokenized, read_sealed, write_sealed
from trueup.data.tokens.survey import contradictions, duplicate_rows, survey
from trueup.data.wants import wants
from trueup.errors import DataError
from trueup.system.files import split_event

Reading = Callable[[str], AbstractContextManager[Ticker]]
"""Given a section's name, shows how far its reading is."""


@dataclass(slots=True)
class Prepared:
    """A stage's data.

    Attributes:
        train: what is trained on: rows, or PPO's prompts.
        weights: of each of the train sections, how often a row is seen in an epoch.
        held_out: what is measured on, if anything.
        mix: SFT rows beside, if any.
        counts: section -> what became of its rows; they add up.
        findings: what the check says.
    """

    train: Examples
    weights: tuple[float, ...]
    held_out: Examples | None
    mix: Examples | None
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    collect: bool = False

    @classmethod
    def empty(cls, findings: Sequence[Finding]) -> Prepared:
        """Of data that cannot be read at all."""
        return cls(Examples([], []), (), None, None, findings=list(findings))

    @property
    def fingerprints(self) -> dict[str, str]:
        """Section -> what its rows are as tokens; another one after a row or the tokenizer changed."""
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
    """Tokenize (or take from the cache), select, hold to `max_length`, and look for faults.

    Args:
        config: the stage.
        renderer: its tokenizer's.
        workers: processes that may turn rows into tokens.
        reading: shows how far it is.
        stores: path -> the path to read instead: stores of rankings at one event, for several processes.
        collect: make rows that are too long a finding too, as `trueup check` wants to tell all there is.

    Raises:
        DataError: a row cannot be used, or rows are too long. Faults that can be allowed are findings, not raised.
        ModelError: the chat template cannot be used for these rows.
    """
    sections = [
        _open(config, place, _at_event(data, stores), kinds, renderer, workers, reading)
        for place, data, kinds in wants(config)
    ]
    trained = [one for one in sections if isinstance(one.config, TrainDataConfig)]
    aside = {one.name: one for one in sections if one not in trained}
    _one_kind(trained)
    weights = tuple(one.weight for one in config.train_sections)
    made = Prepared(Examples([], []), weights, None, None, collect=collect)
    main, trains = config.data_fields[0], not isinstance(config, PpoConfig)
    train = Examples([one.rows for one in trained], [one.train for one in trained])
    made.train = _use(made, config, main, train, trained, renderer, trains=trains)
    for one, rows, weight in zip(trained, made.train.rows, weights, strict=True):
        if not epoch_rows(len(rows), weight):
            raise DataError(_unseen(one, len(rows), weight))
    measured = [aside["eval"]] if "eval" in aside else [one for one in trained if len(one.held_out)]
    if measured:
        rows = [one.train if "eval" in aside else one.held_out for one in measured]
        held_out = Examples([one.rows for one in measured], rows)
        made.held_out = _use(made, config, "eval", held_out, measured, renderer, trains=trains)
    if "mix" in aside:
        mixed = aside["mix"]
        made.mix = _use(made, config, "mix", Examples([mixed.rows], [mixed.train]), [mixed], renderer, trains=True)
    learnt = [*zip(trained, made.train.rows, strict=True)]
    if made.mix is not None:
        learnt.append((aside["mix"], made.mix.rows[0]))
    made.findings += _between(config, made.held_out, measured, learnt)
    return made


def _at_event(data: DataConfig, stores: Mapping[str, str]) -> DataConfig:
    return data.model_copy(update={"path": stores[data.path]}) if data.path in stores else data


def _open(
    config: StageConfig, place: tuple[str | int, ...], data: DataConfig, kinds: Sequence[Any], renderer: Renderer,
    workers: int, reading: Reading,
) -> _Section:  # fmt: skip
    """Tokenize one section and select its rows."""
    name = str(place[0]) if len(place) == 1 or place[-1] == "data" else f"{place[0]}[{place[1]}]"
    with reading(name) as tick:
        rows = tokenize(
            data, kinds, renderer, allow_empty="empty-response" in config.allow, workers=workers, tick=tick
        )  # fmt: skip
    selected = everything(rows)
    if not isinstance(data, TrainDataConfig):
        return _Section(name, data, rows, selected, selected[:0])
    selected = limited(rows, selected, data.limit, config.seed)
    sides = split(rows, selected, data.holdout, config.seed)
    for side, problem in ((sides.train, "leaves no row to train on"), (sides.held_out, "holds out no row")):
        if data.holdout and not len(side):
            raise DataError(
                f"{data.path}: holdout={data.holdout:g} of {len(selected)} rows {problem}\n"
                "  fix: take another share or seed (near-duplicates go together), or give rows in eval.data"
            )
    return _Section(name, data, rows, sides.train, sides.held_out)


def _use(
    made: Prepared, config: StageConfig, name: str, examples: Examples, sections: Sequence[_Section],
    renderer: Renderer, *, trains: bool,
) -> Examples:  # fmt: skip
    """Hold a view to `max_length`, count its rows and survey them."""
    try:
        used, long = _fitted(config, name, examples)
    except DataError as error:
        if not made.collect:
            raise
        made.findings.append(Finding("over-length", "error", name, str(error).removeprefix(f"{name}: ")))
        used, long = examples, {}
    found_rows = survey(used, renderer.stop_ids)
    if found_rows.flags[Flag.UNTRAINED] and trains:
        where = found_rows.places[Flag.UNTRAINED][0]
        raise DataError(f"{where}: no token of this row is trained; give the row an answer that is not empty")
    made.counts[name] = _counts(sections, examples, used) | long
    made.counts[name]["fingerprint"] = "+".join(one.rows.fingerprint for one in sections)
    if trains:
        made.counts[name] |= {"trained_tokens": found_rows.trained, "end_trained": found_rows.flags[Flag.ENDS]}
    spelled = _spelled(used, renderer) if found_rows.flags[Flag.SPECIAL] else ""
    made.findings += found.of_rows(name, found_rows, config.allow, trains=trains, spelled=spelled)
    for one in sections:
        if name != "eval" or not isinstance(one.config, TrainDataConfig):  # of a holdout it was said before
            made.findings += _repeated(one)
    return used


def _spelled(examples: Examples, renderer: Renderer) -> str:
    """The control tokens that the first row that spells some of them does spell."""
    seen, first = 0, list[int]()

    def see(records: NDArray[np.void]) -> None:
        nonlocal seen
        if not first:
            first.extend((np.flatnonzero(records["flags"] & np.uint32(Flag.SPECIAL))[:1] + seen).tolist())
        seen += len(records)

    examples.map_records(see)
    part, row = examples.place(first[0])
    messages = [Message(role, content) for answers in part.parts(row) for role, content in answers]
    return ", ".join(renderer.control_texts(messages)[:3])


def _fitted(config: StageConfig, name: str, examples: Examples) -> tuple[Examples, dict[str, Any]]:
    if isinstance(config, PpoConfig) and name != "mix":
        return fitted_prompts(examples, config.max_length, config.rollouts.max_new_tokens, config.over_length)
    return fitted(name, examples, config.max_length, config.over_length)


def _counts(sections: Sequence[_Section], examples: Examples, used: Examples) -> dict[str, Any]:
    """What became of the rows of one or more sections: `read == used + dropped + unselected + over_length`."""
    metas = [one.rows.meta for one in sections]
    read = sum(meta["read"] for meta in metas)
    dropped = [drop for meta in metas for drop in meta["dropped"]]
    counts: dict[str, Any] = {
        "read": read,
        "used": len(used),
        "dropped": dropped,
        "unselected": read - len(dropped) - len(examples),
        "blank": sum(meta["blank"] for meta in metas),
        "notes": [note for meta in metas for note in meta["notes"]],
        "unused": sorted({key for meta in metas for key in meta["unused"]}),
    }
    events = {split_event(one.config.path)[0]: one.rows.event for one in sections if one.rows.event is not None}
    if events:
        counts["events"] = events
    if len(sections) > 1:
        counts["sections"] = [
            {"path": one.config.path, "rows": len(rows)} for one, rows in zip(sections, examples.rows, strict=True)
        ]
    held = sum(len(one.held_out) for one in sections)
    return counts | ({"held_out": held} if held else {})


def _repeated(section: _Section) -> list[Finding]:
    """Duplicates and contradictions; they take seconds of a million rows, and are kept beside the tokens."""
    path, want = section.rows.folder / "repeated.json", section.rows.meta["want"]
    try:
        told = read_sealed(path)
    except (OSError, ValueError):
        near, exact = duplicate_rows(section.rows)
        count, shown = contradictions(section.rows) if want in ("preference", "labelled") else (0, [])
        told = {"near": near, "exact": exact, "contradicting": count, "shown": shown}
        with suppress(OSError):  # a cache of somebody else's can be read all the same
            write_sealed(path, told)
    rows = len(section.rows)
    return [
        found.duplicates(section.name, told["near"], told["exact"], rows),
        *found.contradicting(section.name, told["contradicting"], told["shown"], labelled=want == "labelled"),
    ]


def _one_kind(trained: Sequence[_Section]) -> None:
    """KTO learns from rankings or from labels, not both at once, and is measured on rankings.

    Raises:
        DataError: it would be otherwise.
    """
    labelled = [one for one in trained if one.rows.meta["want"] == "labelled"]
    if 0 < len(labelled) < len(trained):
        raise DataError("data: rankings and labelled completions in one mixture\n  fix: give data of one kind")
    for one in labelled:
        if len(one.held_out):
            problem = "holdout of labelled completions, but what is measured on are rankings"
            raise DataError(f"{one.name}: {problem}\n  fix: give rankings in eval.data, and no holdout")


def _unseen(section: _Section, rows: int, weight: float) -> str:
    if not rows:
        return f"{section.name}: no row of {section.config.path} is left\n  fix: raise max_length, or take it out"
    problem = f"weight={weight:g} of its {rows} rows is less than one row an epoch: none would be seen"
    return f"{section.name}: {problem}\n  fix: give it a weight of at least {1 / rows:.2g}"


def _between(
    config: StageConfig, held_out: Examples | None, measured: Sequence[_Section],
    learnt: Sequence[tuple[_Section, Selected]],
) -> list[Finding]:  # fmt: skip
    """Held-out rows that are trained on. Of one section the rows that `holdout` parted cannot be."""
    if held_out is None:
        return []
    exact = near = 0
    shown: list[str] = []
    for section, rows in zip(measured, held_out.rows, strict=True):
        for other, others in learnt:
            if section is not other:
                both = overlap(section.rows, rows, other.rows, others)
                exact, near = exact + both.exact, near + both.near
                shown += [_same_row(section.rows.origin(row), other.rows.origin(match)) for row, match in both.shown]
    return found.overlapping("eval", exact, near, len(held_out), shown, config.allow)


def _same_row(held_out: Origin, trained: Origin) -> str:
    """Two places in a few letters: the files' names alone where they tell them apart."""
    a, b = Path(held_out.file).name, Path(trained.file).name
    if a == b and held_out.file != trained.file:
        return f"{held_out} = {trained}"
    return f"{a}:{held_out.line} = {b}:{trained.line}" if a != b else f"{a}:{held_out.line} = line {trained.line}"


def _silent(_rows: int, _share: float) -> None:
    """Tell nobody."""
