"""Read a `Batch` back: its tokens and positions, the tokens that the loss reads, and which tokens attend to which.

Nothing is rendered a second time. Tokens are `input_ids`, positions `position_ids`; trained tokens are those of
`targets` (for a reward model those at `last_at`), and attention is read from the mask that the model gets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from trueup.models.batching import Batch, Branch, Example, Layout, Per, collate, micro_batches
from trueup.preflight.show.checks import answer_faults, branch_names, has_two_bos, totals
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
    """Return the mask view: the first rows as they would train in one optimizer step, and totals over all rows.

    Args:
        examples: rendered rows. A prompt for PPO has one empty branch, or one with the tokens of a sampled answer.
        renderer: the renderer that made them.
        method: sft, reward, dpo (also KTO) or ppo.
        per: the unit of a weight, as in `collate`.
        max_tokens: size of a micro-batch, as in training.
        layout: the network's layout of examples in rows.
        shown: the number of rows of data to show, at most all.
        origins: file and line of the rows; an example's `row` is an index into it.

    Raises:
        ValueError: a target of the batch is not the token that follows the position it is predicted from.
    """

    def place(index: int, example: Example) -> str:
        origin = origins[example.row] if 0 <= example.row < len(origins) else None
        return f"row {index + 1}" if origin is None else f"{Path(origin.file).name}:{origin.line}"

    first = list(examples[:shown])
    places = [place(index, example) if origins else "" for index, example in enumerate(first)]
    # The order of `terms.collate_step` on one process; the batch carries the number as its `rows`.
    numbered = [replace(example, row=index) for index, example in enumerate(first)]
    step = sorted(numbered, key=lambda example: example.total, reverse=True)
    groups = micro_batches(step, max_tokens, layout=layout)
    pad = cast("int", renderer.tokenizer.pad_token_id)
    batches = [collate(group, per=per, pad_id=pad, layout=layout) for group in groups]
    reader = _Reader(renderer, method, layout, places)
    rows = [row for group, batch in zip(groups, batches, strict=True) for row in reader.rows(batch, group)]
    return View(
        method=method,
        rows=tuple(sorted(rows, key=lambda row: row.number)),
        shapes=tuple((batch.input_ids.shape[0], batch.input_ids.shape[1]) for batch in batches),
        totals=totals(examples, renderer, place, method=method, layout=layout),
    )


def target_places(batch: Batch) -> Tensor:
    """Return (N,) the index of each target token among the batch's flattened (R * T) tokens.

    It is counted back from the last token of the target's branch.

    Raises:
        ValueError: the token at that index is not the target, so the batch would train other tokens than it holds.
    """
    position = batch.position_ids.flatten()
    last = batch.last_at[batch.branch_of]
    index = last - (position[last] - position[batch.predict_at] - 1)
    if bool((index > last).any()) or not torch.equal(batch.input_ids.flatten()[index], batch.targets):
        raise ValueError("a target of this batch is not the token that follows the place it is predicted from")
    return index


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a row (the prompt or an answer): the tokens in its columns [start, stop)."""

    name: str
    start: int
    stop: int


class _Reader:
    """Reader that turns micro-batches back into rows of tokens."""

    def __init__(self, renderer: Renderer, method: Method, layout: Layout, places: list[str]) -> None:
        self._renderer, self._places = renderer, places
        self._method: Method = method
        self._layout: Layout = layout
        self._decoder = Decoder(renderer.tokenizer)

    def rows(self, batch: Batch, group: Sequence[Example]) -> list[TokenRow]:
        """Return the rows of a micro-batch; `group` holds the examples that it was collated from."""
        width = batch.input_ids.shape[1]
        ids, positions = batch.input_ids.flatten(), batch.position_ids.flatten()
        trained = torch.zeros(len(ids), dtype=torch.bool)
        trained[batch.last_at if self._method == "reward" else target_places(batch)] = True
        rows: list[TokenRow] = []
        branch = start = 0
        for index, example in enumerate(group):
            names = branch_names(self._method, example)
            together = self._layout != "plain" or len(names) == 1
            for branches in [range(len(names))] if together else [[k] for k in range(len(names))]:
                parts = _parts(example, [(names[k], example.branches[k]) for k in branches])
                size = parts[-1].stop
                row = slice(start, start + size)
                tokens = self._tokens(parts, ids[row].tolist(), positions[row].tolist(), trained[row].tolist())
                rows.append(
                    TokenRow(
                        number=batch.rows[index] + 1,
                        side="" if together else names[branches[0]],
                        origin=self._places[batch.rows[index]],
                        tokens=tokens,
                        width=size if self._layout == "packed" else width,
                        attention=_attention(batch, start, parts),
                        notes=tuple(self._notes(batch, index, [branch + k for k in branches], parts, tokens)),
                        faults=tuple(self._faults(parts, tokens)),
                    )
                )
                start += size if self._layout == "packed" else width
            branch += len(names)
        return rows

    def _tokens(
        self, parts: list[_Part], ids: list[int], positions: list[int], trained: list[bool]
    ) -> tuple[Token, ...]:
        prompt, *answers = parts
        tokens: list[Token] = []
        for part in parts:
            before = ids[prompt.start : prompt.stop] if part is not prompt else []
            pieces = self._decoder.pieces(ids[part.start : part.stop], after=before)
            last = max((index for index in range(part.start, part.stop) if trained[index]), default=-1)
            for index, piece in zip(range(part.start, part.stop), pieces, strict=True):
                # Untrained tokens between the answers of a conversation are its later questions.
                asks = self._method == "sft" and part.name == "answer" and not trained[index] and index < last
                document = part is prompt and answers[0].name == "document"
                name = "document" if document else "prompt" if asks else part.name
                tokens.append(
                    Token(
                        ids[index], piece.text, piece.alone, positions[index], name, trained[index], piece.special,
                        end=trained[index] and ids[index] in self._renderer.stop_ids,
                    )
                )  # fmt: skip
        return tuple(tokens)

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

    def _faults(self, parts: list[_Part], tokens: tuple[Token, ...]) -> list[str]:
        prompt, *answers = parts
        faults: list[str] = []
        start = tokens[: prompt.stop]
        for part in answers:
            branch = tokens[part.start : part.stop]
            mask = [token.trained for token in branch]
            for fault in answer_faults(self._method, [token.id for token in branch], mask, self._renderer.stop_ids):
                text = SCORE_FAULT if self._method == "reward" else FAULTS[fault]
                faults.append(f"{part.name}: {text}")
        sequence = [token.id for token in (*start, *tokens[answers[0].start : answers[0].stop])]
        if has_two_bos(sequence, self._renderer):
            faults.append(f"{FAULTS['bos twice']} ({self._decoder.name(sequence[0])})")
        return faults


def _parts(example: Example, branches: list[tuple[str, Branch]]) -> list[_Part]:
    """Return the parts of a row, with their columns: the prompt, and the answer or document of each branch."""
    parts = [_Part("prompt", 0, len(example.trunk))]
    for name, branch in branches:
        parts.append(_Part(name, parts[-1].stop, parts[-1].stop + len(branch.ids)))
    return parts


def _attention(batch: Batch, start: int, parts: list[_Part]) -> str:
    """Return in words which parts of a row each answer attends to, such as "chosen sees the prompt, not rejected".

    The row starts at index `start` of the flattened batch.
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
    sentences: list[str] = []
    for answer in answers:
        seen = mask[answer.start : answer.stop]
        words = "the prompt" if seen[:, prompt.start : prompt.stop].all() else "not all of the prompt"
        for other in answers:
            if other is not answer:
                words += f"{' and' if seen[:, other.start : other.stop].any() else ', not'} {other.name}"
        sentences.append(f"{answer.name} sees {words}")
    return "; ".join(sentences)
