"""All data of a stage as tokens, checked: what `trueup check` shows, and what every stage does before it trains.

Needs a tokenizer, no weights: a wrong row is said before the model loads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueup.chat import Origin, Renderer
from trueup.config import DataConfig, PpoConfig, StageConfig, TrainDataConfig
from trueup.dataset import findings as found
from trueup.dataset.build import Ticker, tokenize
from trueup.dataset.findings import Finding
from trueup.dataset.fitting import fitted, fitted_prompts
from trueup.dataset.near import overlap
from trueup.dataset.record import Flag
from trueup.dataset.select import Examples, Selected, everything, lengths, limited, split
from trueup.dataset.store import Tokenized
from trueup.dataset.survey import Survey, contradictions, duplicate_rows, survey
from trueup.errors import DataError
from trueup.files import atomic_write_text
from trueup.preflight import wants

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
    collect: bool = False,
) -> Prepared:  # fmt: skip
    """Tokenize (or take from the cache), select, hold to `max_length`, and look for faults.

    Args:
        config: the stage.
        renderer: its tokenizer's.
        workers: processes that may turn rows into tokens.
        reading: shows how far it is.
        collect: make rows that are too long a finding too, as `trueup check` wants to tell all there is.

    Raises:
        DataError: a row cannot be used, or rows are too long. Faults that can be allowed are findings, not raised.
        ModelError: the chat template cannot be used for these rows.
    """
    sections = [_open(config, place, data, kinds, renderer, workers, reading) for place, data, kinds in wants(config)]
    trained = [one for one in sections if isinstance(one.config, TrainDataConfig)]
    aside = {one.name: one for one in sections if one not in trained}
    weights = tuple(one.config.weight for one in trained if isinstance(one.config, TrainDataConfig))
    made = Prepared(Examples([], []), weights, None, None, collect=collect)
    main = config.data_fields[0]
    train = Examples([one.rows for one in trained], [one.train for one in trained])
    made.train = _use(made, config, main, train, trained, renderer, trains=not isinstance(config, PpoConfig))
    if "eval" in aside or any(len(one.held_out) for one in trained):
        measured = [aside["eval"]] if "eval" in aside else trained
        rows = [one.train if "eval" in aside else one.held_out for one in measured]
        held_out = Examples([one.rows for one in measured], rows)
        made.held_out = _use(
            made, config, "eval", held_out, measured, renderer, trains=not isinstance(config, PpoConfig)
        )
    if "mix" in aside:
        mixed = aside["mix"]
        made.mix = _use(made, config, "mix", Examples([mixed.rows], [mixed.train]), [mixed], renderer, trains=True)
    made.findings += _between(config, made, aside.get("eval"), trained)
    return made


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
    sides = split(rows, limited(rows, selected, data.limit, config.seed), data.holdout, config.seed)
    for side, problem in ((sides.train, "leaves no row to train on"), (sides.held_out, "holds out no row")):
        if data.holdout and not len(side):
            raise DataError(f"{data.path}: holdout={data.holdout:g} of {len(rows)} rows {problem}\n  fix: change it")
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
        made.findings.append(Finding("over-length", "error", name, str(error)))
        used, long = examples, {}
    found_rows = survey(used)
    if used.cut is not None:
        _recount(found_rows, used, renderer)
    if found_rows.flags[Flag.UNTRAINED] and trains:
        where = found_rows.places[Flag.UNTRAINED][0]
        raise DataError(f"{where}: no token of this row is trained; give the row an answer that is not empty")
    made.counts[name] = _counts(sections, examples, used) | long
    made.counts[name]["fingerprint"] = "+".join(one.rows.fingerprint for one in sections)
    if trains:
        made.counts[name] |= {"trained_tokens": found_rows.trained, "end_trained": found_rows.flags[Flag.ENDS]}
    made.findings += found.of_rows(name, found_rows, config.allow, trains=trains)
    for one in sections if name != "eval" or len(sections) == 1 else ():
        if not (name == "eval" and isinstance(one.config, TrainDataConfig)):
            made.findings += _repeated(one)
    return used


def _recount(found_rows: Survey, used: Examples, renderer: Renderer) -> None:
    """What the cut rows train, and whether their end tokens are among it: the records tell of whole rows."""
    limit, seen, long = used.cut or 0, 0, list[int]()

    def see(records: NDArray[np.void]) -> None:
        nonlocal seen
        long.extend((np.flatnonzero(lengths(records) > limit) + seen).tolist())
        found_rows.trained -= int(records["trained"][lengths(records) > limit].sum())
        seen += len(records)

    used.map_records(see)
    for at in long:
        branches = used[at].branches
        found_rows.trained += sum(branch.trained for branch in branches)
        ends = all(branch.ids and branch.mask[-1] and branch.ids[-1] in renderer.stop_ids for branch in branches)
        found_rows.flags[Flag.ENDS] -= not ends
        found_rows.flags[Flag.UNTRAINED] += not all(branch.trained for branch in branches)
        if not all(branch.trained for branch in branches):
            found_rows.places[Flag.UNTRAINED].append(str(used.origin(at)))


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
    if len(sections) > 1:
        counts["sections"] = [
            {"path": one.config.path, "rows": len(rows)} for one, rows in zip(sections, examples.rows, strict=True)
        ]
    held = sum(len(one.held_out) for one in sections)
    return counts | ({"held_out": held} if held else {})


def _repeated(section: _Section) -> list[Finding]:
    """Duplicates and contradictions; they take seconds of a million rows, and are kept beside the tokens."""
    path = Path(section.rows.folder) / "repeated.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        near, exact = duplicate_rows(section.rows)
        count, shown = contradictions(section.rows) if section.rows.meta["want"] == "preference" else (0, [])
        told = {"near": near, "exact": exact, "contradicting": count, "shown": shown}
        atomic_write_text(path, json.dumps(told))
    rows = len(section.rows)
    return [
        found.duplicates(section.name, told["near"], told["exact"], rows),
        *found.contradicting(section.name, told["contradicting"], told["shown"]),
    ]


def _between(
    config: StageConfig, made: Prepared, held_out: _Section | None, trained: Sequence[_Section]
) -> list[Finding]:
    """Held-out rows that are trained on. Rows of one section that were parted by `holdout` cannot be."""
    if held_out is None or made.held_out is None:
        return []
    exact = near = 0
    shown: list[str] = []
    for at, one in enumerate(trained):
        both = overlap(held_out.rows, made.held_out.rows[0], one.rows, made.train.rows[at])
        exact, near = exact + both.exact, near + both.near
        shown += [_same_row(held_out.rows.origin(row), one.rows.origin(match)) for row, match in both.shown]
    return found.overlapping("eval", exact, near, len(made.held_out), shown, config.allow)


def _same_row(held_out: Origin, trained: Origin) -> str:
    """Two places in a few letters: the files' names alone where they tell them apart."""
    a, b = Path(held_out.file).name, Path(trained.file).name
    if a == b and held_out.file != trained.file:
        return f"{held_out} = {trained}"
    return f"{a}:{held_out.line} = {b}:{trained.line}" if a != b else f"{a}:{held_out.line} = line {trained.line}"


def _silent(_rows: int, _share: float) -> None:
    """Tell nobody."""
