"""What is wrong with a row, and what adds up over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from trueup.preflight.show.mask_view import DataTotals, Fault, Method

if TYPE_CHECKING:
    from trueup.data.rendering.renderer import Renderer
    from trueup.models.batching import Example, Layout


def sides(method: Method, example: Example) -> list[str]:
    """What each branch is called. A document has no prompt: its branch follows its first token, or bos."""
    if len(example.branches) == 2 and method in ("reward", "dpo"):
        return ["chosen", "rejected"]
    if len(example.branches) != 1:
        return [f"answer {number}" for number in range(1, len(example.branches) + 1)]
    document = method == "sft" and len(example.trunk) <= 1 and all(example.branches[0].mask)
    return ["document" if document else "answer"]


def trains(method: Method, mask: Sequence[bool]) -> list[bool]:
    """Which tokens of a branch the loss reads: those of the mask; of a reward model the last, where its score is."""
    return [False] * (len(mask) - 1) + [True] * bool(mask) if method == "reward" else list(mask)


def is_ended(method: Method, ids: Sequence[int], trained: Sequence[bool], stops: frozenset[int]) -> bool:
    """Whether each trained stretch ends with a stop token. PPO samples answers: one cut off has none, rightly."""
    if method == "ppo":
        return True
    after = [*trained[1:], False]
    return all(token in stops for token, now, more in zip(ids, trained, after, strict=True) if now and not more)


def faults(method: Method, ids: Sequence[int], trained: Sequence[bool], stops: frozenset[int]) -> Iterator[Fault]:
    """What is wrong with an answer (or a document): `ids`, and which of them are `trained`."""
    if not any(trained) and (ids or method != "ppo"):
        yield "end not trained" if method == "reward" else "nothing trained"
    elif not is_ended(method, ids, trained, stops):
        yield "end not trained"


def starts_twice(ids: Sequence[int], renderer: Renderer) -> bool:
    """Whether a sequence begins with two bos tokens: the template wrote one and the tokenizer put another."""
    bos = renderer.tokenizer.bos_token_id
    return bos is not None and list(ids[:2]) == [bos, bos]


def ends(method: Method, example: Example, stops: frozenset[int]) -> dict[str, bool]:
    """Side -> whether its last token is a stop token that is trained. A prompt that PPO will answer has no side."""
    return {
        side: bool(branch.ids) and branch.ids[-1] in stops and trains(method, branch.mask)[-1]
        for side, branch in zip(sides(method, example), example.branches, strict=True)
        if branch.ids or method != "ppo"
    }


def row_faults(method: Method, example: Example, renderer: Renderer) -> set[Fault]:
    """What is wrong with a row of data."""
    found: set[Fault] = set()
    for branch in example.branches:
        found.update(faults(method, branch.ids, trains(method, branch.mask), renderer.stop_ids))
        if starts_twice([*example.trunk[:2], *branch.ids[:2]], renderer):
            found.add("bos twice")
    return found


def totals(
    examples: Iterable[Example],
    renderer: Renderer,
    place: Callable[[int, Example], str],
    *,
    method: Method,
    layout: Layout,
) -> DataTotals:
    """Add up all examples, in one pass. `place(k, example)` says where example k (from 0) is from."""
    summed = DataTotals()
    for at, example in enumerate(examples):
        shared = layout != "plain" and len(example.branches) > 1
        summed.rows += 1
        summed.sharing += shared
        summed.tokens += example.total if shared else sum(len(example.trunk) + len(one.ids) for one in example.branches)
        summed.trained += sum(sum(trains(method, branch.mask)) for branch in example.branches)
        if example.longest > summed.longest:
            summed.longest, summed.longest_at = example.longest, place(at, example)
        ended = ends(method, example, renderer.stop_ids)
        for side, is_trained in ended.items():
            done, of = summed.ends.get(side, (0, 0))
            summed.ends[side] = (done + is_trained, of + 1)
        summed.answered += bool(ended)
        summed.end_rows += bool(ended) and all(ended.values())
        for fault in row_faults(method, example, renderer):
            summed.wrong.setdefault(fault, []).append(place(at, example))
    return summed
