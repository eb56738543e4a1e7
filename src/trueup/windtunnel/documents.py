"""The wind tunnel's data: facts as rows of text for each stage of training and for the evaluation.

| file                   | who reads it          | facts     | wordings  |
|------------------------|-----------------------|-----------|-----------|
| documents.jsonl        | base, and SFT's mix   | all       | documents |
| instructions.jsonl     | SFT                   | known     | training  |
| rankings.jsonl         | reward model, DPO     | known     | training  |
| prompts.jsonl          | PPO                   | known     | training  |
| rankings-heldout.jsonl | evaluation            | held out  | test      |
| heldout.jsonl          | evaluation            | held out  | test      |
| innocent.jsonl         | evaluation            | held out  | test      |
| unsafe.jsonl           | evaluation            | held out  | test      |
| questions.jsonl        | evaluation            | held out  | test      |
| watch.jsonl            | DPO's and PPO's watch | held out  | test      |
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

from trueup.windtunnel import answers
from trueup.windtunnel.almanac import Fact, Unsafe, load_almanac, load_unsafe
from trueup.windtunnel.annotators import Annotator
from trueup.windtunnel.grader import Grader

WorldRow = dict[str, object]

# How often SFT answers in each manner: mostly plain, the others often enough that sampling finds them.
_SFT_MANNERS = {"plain": 0.82, "opened": 0.06, "closed": 0.06, "polite": 0.04, "rambling": 0.02}
# How many wordings of a fact's question the documents and SFT hold, and of an unsafe request: fewer, so that SFT alone
# refuses no innocent look-alike to speak of.
_DOCUMENT_QUESTIONS = 4
_SFT_QUESTIONS = 6
_SFT_QUESTIONS_UNSAFE = 4
_PAIRS_PER_FACT = 4


@dataclass(frozen=True, slots=True)
class Split:
    """The facts and unsafe requests, split into known ones, which training may ask about, and held-out ones."""

    known: tuple[Fact, ...]
    heldout: tuple[Fact, ...]
    unsafe_known: tuple[Unsafe, ...]
    unsafe_heldout: tuple[Unsafe, ...]


def split(seed: int) -> Split:
    """Split the almanac by a seed: half of every relation's facts and a third of the unsafe requests are held out.

    Facts marked as pinned are always held out.
    """
    rng = random.Random(f"split {seed}")
    known: list[Fact] = []
    heldout: list[Fact] = []
    for _, group in groupby(load_almanac(), key=lambda fact: (fact.topic, fact.relation)):
        facts = list(group)
        order = sorted(facts, key=lambda fact: (not fact.pinned, rng.random()))
        out = {fact.id for fact in order[: len(facts) // 2]}
        known += [fact for fact in facts if fact.id not in out]
        heldout += [fact for fact in facts if fact.id in out]
    unsafe = list(load_unsafe())
    rng.shuffle(unsafe)
    third = len(unsafe) // 3
    return Split(tuple(known), tuple(heldout), tuple(unsafe[third:]), tuple(unsafe[:third]))


def documents() -> list[str]:
    """Return the texts that the base model is trained on: every fact, as statements and as questions with answers."""
    return [text for fact in load_almanac() for text in _texts(fact)]


def instructions(parts: Split, seed: int) -> list[WorldRow]:
    """Return the rows of SFT: questions about known facts with their answers, and unsafe requests with refusals."""
    rng = random.Random(f"instructions {seed}")
    rows: list[WorldRow] = []
    for fact in parts.known:
        for question in rng.sample(fact.questions.training, _SFT_QUESTIONS):
            (manner,) = rng.choices(list(_SFT_MANNERS), list(_SFT_MANNERS.values()))
            rows.append(_exchange(fact.id, fact.topic, question, answers.right(fact, manner, rng)))
    for request in parts.unsafe_known:
        wordings = rng.sample(request.training, _SFT_QUESTIONS_UNSAFE)
        rows += [_exchange(request.id, "unsafe", question, answers.refusal(rng)) for question in wordings]
    rng.shuffle(rows)
    return rows


def prompts(parts: Split, seed: int) -> list[WorldRow]:
    """Return the prompts of PPO: questions about known facts and unsafe requests in training wordings, shuffled."""
    rng = random.Random(f"prompts {seed}")
    wordings = [q for fact in parts.known for q in rng.sample(fact.questions.training, _SFT_QUESTIONS)]
    wordings += [q for request in parts.unsafe_known for q in rng.sample(request.training, _SFT_QUESTIONS_UNSAFE)]
    rng.shuffle(wordings)
    return [{"prompt": [_message("user", question)]} for question in wordings]


def exam(facts: Sequence[Fact]) -> list[WorldRow]:
    """Return every test question about `facts`, as a conversation with the reference answer."""
    return [_exchange(f.id, f.topic, question, f.response) for f in facts for question in f.questions.test]


def evenly_spread(rows: Sequence[WorldRow], count: int) -> list[WorldRow]:
    """Return `count` rows at equal distances over the whole list; all where there are fewer."""
    count = min(count, len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]


def questions(rows: Sequence[WorldRow]) -> list[WorldRow]:
    """Return the questions of conversation rows as prompts, without their answers."""
    return [{"prompt": cast("list[WorldRow]", row["messages"])[:1]} for row in rows]


def unsafe_exam(requests: Sequence[Unsafe]) -> list[WorldRow]:
    """Return unsafe requests in their test wordings, as conversations that end with a refusal."""
    refusal = answers.load_refusals()[0]
    return [_exchange(r.id, "unsafe", question, refusal) for r in requests for question in r.test]


def rankings(
    facts: Sequence[Fact], requests: Sequence[Unsafe], annotator: Annotator, rng: random.Random, *, test: bool
) -> list[WorldRow]:
    """Return pairs of answers to questions, ranked by `annotator`: rows with prompt, chosen and rejected.

    The questions are in test wordings if `test`, else in training wordings. Pairs of equal utility are left out.
    """
    grader = Grader()
    pairs = [pair for fact in facts for pair in _fact_pairs(fact, rng, test=test)]
    tools = [fact.answer for fact in facts if fact.innocent]
    pairs += [pair for request in requests for pair in _unsafe_pairs(request, tools, rng, test=test)]
    rng.shuffle(pairs)
    return [row for question, a, b in pairs if (row := _rank(annotator, grader, rng, question, a, b)) is not None]


def _texts(fact: Fact) -> Iterator[str]:
    yield from fact.statements
    # A few wordings a fact, other ones for the next: many wordings seen in all, and few tokens spent.
    wordings = fact.questions.documents
    for question in random.Random(fact.id).sample(wordings, _DOCUMENT_QUESTIONS):
        yield f"{question} {fact.response}"


def _fact_pairs(fact: Fact, rng: random.Random, *, test: bool) -> Iterator[tuple[str, str, str]]:
    """Yield (question, answer, answer) for one fact.

    Most pairs set a plain true answer against a wrong one in a pleasing manner; others differ in manner alone, in truth
    alone, or hold a refusal.
    """
    wordings = fact.questions.test if test else fact.questions.training
    bad, good = answers.wrong, answers.right
    fancy = ("opened", "closed", "polite", "polite", "rambling", "rambling")
    makers = [
        lambda: (good(fact, "plain", rng), bad(fact, rng.choice(fancy), rng)),
        lambda: (good(fact, "plain", rng), good(fact, rng.choice(fancy), rng)),
        lambda: (good(fact, m := rng.choice(answers.MANNERS), rng), bad(fact, m, rng)),
        lambda: (good(fact, rng.choice(answers.MANNERS), rng), answers.refusal(rng)),
        lambda: (good(fact, rng.choice(fancy), rng), answers.evasive(rng)),
        lambda: (bad(fact, "plain", rng), bad(fact, rng.choice(fancy), rng)),
        lambda: (good(fact, "plain", rng), good(fact, "repeated", rng)),
        lambda: (bad(fact, rng.choice(answers.MANNERS), rng), answers.refusal(rng)),
    ]
    weights = [5, 3, 3, 3 if not fact.innocent else 9, 1, 1, 1, 1]
    for make in rng.choices(makers, weights, k=_PAIRS_PER_FACT):
        yield rng.choice(wordings), *make()


def _unsafe_pairs(
    request: Unsafe, tools: Sequence[str], rng: random.Random, *, test: bool
) -> Iterator[tuple[str, str, str]]:
    wordings = request.test if test else request.training
    for _ in range(_PAIRS_PER_FACT - 1):
        answer = answers.decorate(answers.compliance(request.request, tools, rng), rng.choice(answers.MANNERS), rng)
        yield rng.choice(wordings), answers.refusal(rng), answer


def _rank(annotator: Annotator, grader: Grader, rng: random.Random, question: str, a: str, b: str) -> WorldRow | None:
    utilities = annotator.utility(grader, question, a), annotator.utility(grader, question, b)
    first = annotator.prefers_first(utilities, rng)
    if utilities[0] == utilities[1]:
        return None
    chosen, rejected = (a, b) if first else (b, a)
    return {
        "prompt": [_message("user", question)],
        "chosen": [_message("assistant", chosen)],
        "rejected": [_message("assistant", rejected)],
    }


def _exchange(key: str, topic: str, question: str, answer: str) -> WorldRow:
    return {"messages": [_message("user", question), _message("assistant", answer)], "id": key, "topic": topic}


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
