"""Implementation of `trueup show`, which shows the first rows of a stage's data as they will train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, overload

from trueup.config import DpoConfig, StageConfig, TrainDataConfig
from trueup.data.example import Example
from trueup.data.rendering.messages import Origin
from trueup.data.tokens.prepare import prepare
from trueup.data.tokens.select import Examples
from trueup.data.unpaired import unpaired_examples
from trueup.errors import DataError
from trueup.models.batching import Per
from trueup.models.loading import load_renderer
from trueup.preflight.show import print_view, view, write_html
from trueup.system.console import quiet_libraries
from trueup.system.text import clean

_LOOKED_AT = 10_000
"""Rows of each section that the totals cover: reading a million to show three would take long."""
_PER: dict[str, Per] = {"sft": "token", "reward": "example", "dpo": "example", "ppo": "token"}


def run(
    stages: Sequence[StageConfig], base: str | None, *, rows: int, tokens: bool = False, html: Path | None = None
) -> None:
    """Show in the terminal which tokens of the first rows of each stage train, and with `html` also as a page.

    Rows are shown packed (several in one sequence without padding), as most models train. Whether a model takes packed
    rows is found only when its weights are loaded, which is not done here; others train on padded rows.

    Args:
        stages: the stages of a pipeline, or one stage.
        base: the model whose tokenizer is used for stages that start from a model that does not exist yet.
        rows: the number of rows to show.
        tokens: True prints one line a token.
        html: path of the page; with several stages one file each, `NAME-stage.html`.

    Raises:
        DataError: a row cannot be used.
    """
    quiet_libraries()
    for stage in stages:
        model = stage.model if base is None or Path(stage.model).exists() else base
        renderer = load_renderer(stage, model)
        prepared = prepare(_beginning(stage, max(rows, _LOOKED_AT)), renderer, collect=True)
        if any(finding.code == "unusable" for finding in prepared.findings):
            raise DataError(prepared.findings[0].text)
        train = prepared.train
        examples: Sequence[Example] = train
        unpaired = isinstance(stage, DpoConfig) and stage.loss.unpaired
        if unpaired:
            examples = unpaired_examples(train)
        mask_view = view(
            examples, renderer, method=cast("Any", stage.method), per="branch" if unpaired else _PER[stage.method],
            max_tokens=stage.max_tokens, layout="packed", shown=min(rows, len(examples)),
            origins=_Origins(train, len(examples)),
        )  # fmt: skip
        if len(stages) > 1:
            print(f"\n== {clean(stage.output.name, one_line=True)} ==")
        print_view(mask_view, tokens=tokens)
        if html is not None:
            path = html if len(stages) == 1 else html.with_name(f"{html.stem}-{stage.output.name}{html.suffix}")
            write_html(mask_view, path)
            print(f"written to {clean(str(path), one_line=True)}")


class _Origins(Sequence[Origin]):
    """File and line of each example, by its index.

    A loss on unpaired answers makes two examples of each ranking: example i is of row i modulo the number of rows.
    """

    def __init__(self, rows: Examples, count: int) -> None:
        self._rows, self._count = rows, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Origin: ...
    @overload
    def __getitem__(self, index: slice) -> list[Origin]: ...
    def __getitem__(self, index: int | slice) -> Origin | list[Origin]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._rows.origin(index % len(self._rows))


def _beginning(stage: StageConfig, rows: int) -> StageConfig:
    """Return the stage with only the first `rows` rows of each training section, without eval and mix data."""
    changed: dict[str, Any] = {"eval": stage.eval.model_copy(update={"data": None}), "mix": None}
    for key in stage.data_fields:
        value: TrainDataConfig | list[TrainDataConfig] = getattr(stage, key)
        sections = [_first(section, rows) for section in (value if isinstance(value, list) else [value])]
        changed[key] = sections if isinstance(value, list) else sections[0]
    return stage.model_copy(update=changed)


def _first(section: TrainDataConfig, rows: int) -> TrainDataConfig:
    start, stop = section.span
    last = start + rows if stop is None else min(stop, start + rows)
    return section.model_copy(update={"rows": f"{start}:{last}", "holdout": 0.0, "limit": None, "weight": 1.0})
