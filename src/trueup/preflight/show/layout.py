"""A `Batch` read back: which token stands where, what the loss reads, and what may attend to what.

Nothing is rendered a second time. The tokens are `input_ids`, their positions `position_ids`; trained is what `targets`
lists (for a reward model what `last_at` points to), and who sees whom is read from what attention is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from trueup.models.batching import Batch, Branch, Example, Layout, Per, collate, micro_batches
from trueup.preflight.show.checks import faults, sides, starts_twice, totals
from trueup.preflight.show.mask_view import FAULTS, SCORE_FAULT, Method, Token, TokenRow, View
from trueup.preflight.show.pieces import Decoder

if TYPE_CHECKING:
    from trueup.data.rendering.messages import Origin
    from trueup.data.rendering.renderer import Renderer


def view(
    examples: Sequence[Example],
    renderer: Renderer,
    *,
    method: Method,
    per: Per,
    max_tokens: int,
    layout: Layout,
    shown: int,
    origins: Sequence[Origin | None] = (),
) -> View:
    """The first rows as they train, were they one optimizer step of their own, and totals over all.

    Args:
        examples: rendered rows. A prompt for PPO has one empty branch, an answer that was sampled has its tokens.
        renderer: of the tokenizer that rendered them.
        method: sft, reward, dpo (also KTO) or ppo.
        per: what one weight stands for, as in `collate`.
        max_tokens: size of a micro-batch, as in training.
        layout: how examples become rows, as the network says.
        shown: how many rows of data to show; fewer where there are fewer.
        origins: where the rows came from; an example's `row` is an index into it.

    Raises:
        ValueError: a target of the batch is not the token that stands behind the place it is predicted from.
    """

    def place(at: int, example: Example) -> str:
        origin = origins[example.row] if 0 <= example.row < len(origins) else None
        return f"row {at + 1}" if origin is None else f"{Path(origin.file).name}:{origin.line}"

    first = list(examples[:shown])
    where = [place(at, one) if origins else "" for at, one in enumerate(first)]
    # As `terms.collate_step` on one process; the number travels through the batch as its `rows`.
    step = sorted((replace(one, row=at) for at, one in enumerate(first)), key=lambda one: one.total, reverse=True)
    groups = micro_batches(step, max_tokens, layout=layout)
    pad = cast("int", renderer.tokenizer.pad_token_id)
    batches = [collate(group, per=per, pad_id=pad, layout=layout) for group in groups]
    reader = _Reader(renderer, method, layout, where)
    rows = [row for group, batch in zip(groups, batches, strict=True) for row in reader.rows(batch, group)]
    return View(
        method=method,
        rows=tuple(sorted(rows, key=lambda row: row.number)),
        shapes=tuple((batch.input_ids.shape[0], batch.input_ids.shape[1]) for batch in batches),
        totals=totals(examples, renderer, place, method=method, layout=layout),
    )


def target_places(batch: Batch) -> Tensor:
    """(N,) index into the flattened (R * T) tokens of each target, worked out backwards from its branch's last token.

    Raises:
        ValueError: another token stands there than the target: the batch would train something else than it holds.
    """
    position = batch.position_ids.flatten()
    last = batch.last_at[batch.branch_of]
    at = last - (position[last] - position[batch.predict_at] - 1)
    if bool((at > last).any()) or not torch.equal(batch.input_ids.flatten()[at], batch.targets):
        raise ValueError("a target of this batch is not the token that follows the place it is predicted from")
    return at


@dataclass(frozen=True, slots=True)
class _Part:
    """Columns [start, stop) of a row."""

    name: str
    start: int
    stop: int


class _Reader:
    """Rows of data from micro-batches."""

    def __init__(self, renderer: Renderer, method: Method, layout: Layout, where: list[str]) -> None:
        self._renderer, self._where = renderer, where
        self._method: Method = method
        self._layout: Layout = layout
        self._decoder = Decoder(renderer.tokenizer)

    def rows(self, batch: Batch, group: Sequence[Example]) -> list[TokenRow]:
        """The rows of one micro-batch, made from the examples `group`."""
        width = batch.input_ids.shape[1]
        ids, positions = batch.input_ids.flatten(), batch.position_ids.flatten()
        trained = torch.zeros(len(ids), dtype=torch.bool)
        trained[batch.last_at if self._method == "reward" else target_places(batch)] = True
        rows: list[TokenRow] = []
        branch = start = 0
        for at, example in enumerate(group):
            names = sides(self._method, example)
            together = self._layout != "plain" or len(names) == 1
            for some in [range(len(names))] if together else [[k] for k in range(len(names))]:
                parts = _parts(example, [(names[k], example.branches[k]) for k in some])
                size = parts[-1].stop
                here = slice(start, start + size)
                tokens = self._tokens(parts, ids[here].tolist(), positions[here].tolist(), trained[here].tolist())
                rows.append(
                    TokenRow(
                        number=batch.rows[at] + 1,
                        side="" if together else names[some[0]],
                        origin=self._where[batch.rows[at]],
                        tokens=tokens,
                        width=size if self._layout == "packed" else width,
                        sees=_sees(batch, start, parts),
                        notes=tuple(self._notes(batch, at, [branch + k for k in some], parts, tokens)),
                        wrong=tuple(self._wrong(parts, tokens)),
                    )
                )
                start += size if self._layout == "packed" else width
            branch += len(names)
        return rows

    def _tokens(
        self, parts: list[_Part], ids: list[int], positions: list[int], trained: list[bool]
    ) -> tuple[Token, ...]:
        prompt, *answers = parts
        made: list[Token] = []
        for part in parts:
            before = ids[prompt.start : prompt.stop] if part is not prompt else []
            pieces = self._decoder.pieces(ids[part.start : part.stop], after=before)
            last = max((at for at in range(part.start, part.stop) if trained[at]), default=-1)
            for at, piece in zip(range(part.start, part.stop), pieces, strict=True):
                # Between the answers of a conversation stand the next questions.
                asks = self._method == "sft" and part.name == "answer" and not trained[at] and at < last
                document = part is prompt and answers[0].name == "document"
                name = "document" if document else "prompt" if asks else part.name
                made.append(
                    Token(
                        ids[at], piece.text, piece.alone, positions[at], name, trained[at], piece.special,
                        end=trained[at] and ids[at] in self._renderer.stop_ids,
                    )
                )  # fmt: skip
        return tuple(made)

    def _notes(
        self, batch: Batch, example: int, branches: list[int], parts: list[_Part], tokens: tuple[Token, ...]
    ) -> list[str]:
        notes: list[str] = []
        answer = parts[-1]
        if answer.name == "document" and tokens and not tokens[0].trained:
            notes.append("the first token is no target: there is nothing before it to predict it from")
        if self._method == "ppo" and answer.start == answer.stop:
            notes.append("nothing is trained yet: the model writes from here, and all that it writes is trained")
        elif self._method == "ppo" and not tokens[-1].end:
            notes.append("the answer was cut off before an end token; it trains as far as it goes")
        if "desirable" in batch.columns:
            notes += ["labelled " + ("good" if batch.columns["desirable"][k] > 0 else "bad") for k in branches]
        if "margin" in batch.columns:
            notes.append(f"margin {float(batch.columns['margin'][example]):g}")
        return notes

    def _wrong(self, parts: list[_Part], tokens: tuple[Token, ...]) -> list[str]:
        prompt, *answers = parts
        found: list[str] = []
        start = tokens[: prompt.stop]
        for part in answers:
            branch = tokens[part.start : part.stop]
            mask = [token.trained for token in branch]
            for fault in faults(self._method, [token.id for token in branch], mask, self._renderer.stop_ids):
                said = SCORE_FAULT if self._method == "reward" else FAULTS[fault]
                found.append(f"{part.name}: {said}")
        sequence = [token.id for token in (*start, *tokens[answers[0].start : answers[0].stop])]
        if starts_twice(sequence, self._renderer):
            found.append(f"{FAULTS['bos twice']} ({self._decoder.name(sequence[0])})")
        return found


def _parts(example: Example, branches: list[tuple[str, Branch]]) -> list[_Part]:
    """The prompt's columns and those of each branch."""
    parts = [_Part("prompt", 0, len(example.trunk))]
    for name, branch in branches:
        parts.append(_Part(name, parts[-1].stop, parts[-1].stop + len(branch.ids)))
    return parts


def _sees(batch: Batch, start: int, parts: list[_Part]) -> str:
    """In words, what attention lets each answer see: all of the prompt or not, any of its siblings or not.

    `start`: where the row's first token stands in the flattened batch.
    """
    prompt, *answers = parts
    real = parts[-1].stop
    mask = causal = torch.ones(real, real, dtype=torch.bool).tril()
    if batch.sequences is not None:
        mask = batch.sequences.visible(start, start + real)
    elif batch.attention_mask is not None:
        mask = batch.attention_mask[start // batch.input_ids.shape[1], 0, :real, :real]
    if len(answers) == 1:
        return f"each token sees {'all' if mask.equal(causal) else 'not all'} that is before it"
    said: list[str] = []
    for one in answers:
        seen = mask[one.start : one.stop]
        words = "the prompt" if seen[:, prompt.start : prompt.stop].all() else "not all of the prompt"
        for other in answers:
            if other is not one:
                words += f"{' and' if seen[:, other.start : other.stop].any() else ', not'} {other.name}"
        said.append(f"{one.name} sees {words}")
    return "; ".join(said)
