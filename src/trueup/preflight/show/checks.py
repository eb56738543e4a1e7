"""Find faults of rows, such as an end token that is not trained, and add up totals over all rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from trueup.preflight.show.mask_view import DataTotals, Fault, Method

if TYPE_CHECKING:
    from trueup.data.rendering.renderer import Renderer
    from trueup.models.batching import Example, Layout


def branch_names(method: Method, example: Example) -> list[str]:
    """Return the name of each branch of an example: chosen and rejected, answer, document, or numbered answers.

    A document has no prompt: its trunk is its first token, or bos.
    """
    if len(example.branches) == 2 and method in ("reward", "dpo"):
        return ["chosen", "rejected"]
    if len(example.branches) != 1:
        return [f"answer {number}" for number in range(1, len(example.branches) + 1)]
    document = method == "sft" and len(example.trunk) <= 1 and all(example.branches[0].mask)
    return ["document" if document else "answer"]


def trained_mask(method: Method, mask: Sequence[bool]) -> list[bool]:
    """Return for each token of a branch if the loss reads it: the mask; for a reward model only the last token."""
    return [False] * (len(mask) - 1) + [True] * bool(mask) if method == "reward" else list(mask)


def is_ended(method: Method, ids: Sequence[int], trained: Sequence[bool], stops: frozenset[int]) -> bool:
    """Return True if each stretch of trained tokens ends with one of the end tokens `stops`.

    Always True for PPO, where answers may be cut off.
    """
    if method == "ppo":
        return True
    after = [*trained[1:], False]
    return all(token in stops for token, now, more in zip(ids, trained, after, strict=True) if now and not more)


def answer_faults(
    method: Method, ids: Sequence[int], trained: Sequence[bool], stops: frozenset[int]
) -> Iterator[Fault]:
    """Yield the faults of an answer (or a document) with the token ids `ids`, of which those in `trained` train.

    Faults are that nothing is trained, or that the end token is not.
    """
    if not any(trained) and (ids or method != "ppo"):
        yield "end not trained" if method == "reward" else "nothing trained"
    elif not is_ended(method, ids, trained, stops):
        yield "end not trained"


def has_two_bos(ids: Sequence[int], renderer: Renderer) -> bool:
    """Return True if a sequence begins with two bos tokens, as when both chat template and tokenizer add one."""
    bos = renderer.tokenizer.bos_token_id
    return bos is not None and list(ids[:2]) == [bos, bos]


def ends_trained(method: Method, example: Example, stops: frozenset[int]) -> dict[str, bool]:
    """Return branch name -> True if its last token is a trained end token.

    A prompt of PPO has no answer yet, and so no entry.
    """
    return {
        name: bool(branch.ids) and branch.ids[-1] in stops and trained_mask(method, branch.mask)[-1]
        for name, branch in zip(branch_names(method, example), example.branches, strict=True)
        if branch.ids or method != "ppo"
    }


def row_faults(method: Method, example: Example, renderer: Renderer) -> set[Fault]:
    """Return the faults of a row of data: of its answers, and of the start of its sequences."""
    faults: set[Fault] = set()
    for branch in example.branches:
        faults.update(answer_faults(method, branch.ids, trained_mask(method, branch.mask), renderer.stop_ids))
        if has_two_bos([*example.trunk[:2], *branch.ids[:2]], renderer):
            faults.add("bos twice")
    return faults


def totals(
    examples: Iterable[Example],
    renderer: Renderer,
    place: Callable[[int, Example], str],
    *,
    method: Method,
    layout: Layout,
) -> DataTotals:
    """Return the totals over all examples, computed in one pass.

    `place(index, example)` returns the file and line of an example, to name the rows with faults.
    """
    summed = DataTotals()
    for index, example in enumerate(examples):
        shared = layout != "plain" and len(example.branches) > 1
        summed.rows += 1
        summed.sharing += shared
        summed.tokens += (
            example.total if shared else sum(len(example.trunk) + len(branch.ids) for branch in example.branches)
        )
        summed.trained += sum(sum(trained_mask(method, branch.mask)) for branch in example.branches)
        if example.longest > summed.longest:
            summed.longest, summed.longest_at = example.longest, place(index, example)
        ended = ends_trained(method, example, renderer.stop_ids)
        for name, is_trained in ended.items():
            trained, answers = summed.ends.get(name, (0, 0))
            summed.ends[name] = (trained + is_trained, answers + 1)
        summed.answered += bool(ended)
        summed.end_rows += bool(ended) and all(ended.values())
        for fault in row_faults(method, example, renderer):
            summed.faults.setdefault(fault, []).append(place(index, example))
    return summed
