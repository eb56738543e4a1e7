"""Reading and writing of prompts and pairs. A digest of the content identifies each, so that none is stored twice."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, Table, bindparam, select, update
from sqlalchemy.dialects.sqlite import insert

from trueup.data.rendering.messages import TOOLS, Message
from trueup.data.votes.ballots import mend_surrogates
from trueup.data.votes.database import now_utc
from trueup.data.votes.tables import levels, pairs, prompts, shares, tallies
from trueup.data.votes.vote_types import Answer, NewPair, NewPrompt, Pair, Side, StoredPrompt
from trueup.errors import DataError
from trueup.system.text import excerpt


def draw_number(key: str, *parts: str | int) -> int:
    """Return a pseudorandom 63-bit number that depends only on `key` (the store's secret and seed) and `parts`."""
    text = "\0".join(map(str, (key, *parts)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def draw_position(key: str, kind: str, number: int) -> int:
    """Return the number that sorts a prompt or pair (`kind`, with the id `number`) into the store's random order."""
    return draw_number(key, kind, number)


def left_side(key: str, prompt: int, rater: int) -> Side:
    """Return the side ("first" or "second") whose answer a rater sees on the left, as A.

    The side is drawn from the key, the prompt and the rater, so about half of the raters see the other answer there.
    """
    return "first" if draw_number(key, "left", prompt, rater) % 2 else "second"


T = TypeVar("T")
CHUNK = 500
"""Rows inserted by one transaction; raters wait while it lasts."""


def chunks(items: Iterable[T]) -> Iterator[tuple[T, ...]]:
    """Yield the items in tuples of at most CHUNK items."""
    remaining = iter(items)
    while chunk := tuple(itertools.islice(remaining, CHUNK)):
        yield chunk


def add_prompts(connection: Connection, key: str, new: Sequence[NewPrompt]) -> tuple[dict[bytes, int], int]:
    """Insert the prompts that are not stored yet.

    Return {digest: prompt id} of all given prompts, and the number of new ones.
    """
    rows = {}
    for prompt in new:
        digest = prompt_digest(prompt)
        rows.setdefault(digest, prompt)
    known = _ids(connection, prompts, rows)
    added = now_utc()
    new_rows = [_prompt_row(digest, prompt, added) for digest, prompt in rows.items() if digest not in known]
    if new_rows:
        connection.execute(insert(prompts), new_rows)
        fresh = _ids(connection, prompts, [row["digest"] for row in new_rows])
        connection.execute(
            insert(shares),
            [share(key, prompt) for prompt in fresh.values()],
        )
        known |= fresh
    return known, len(new_rows)


def add_pairs(connection: Connection, key: str, new: Sequence[NewPair]) -> tuple[dict[bytes, int], int]:
    """Insert the pairs that are not stored yet, with their prompts.

    Returns:
        {digest: pair id} of all given pairs, and the number of pairs that were new.
    """
    prompt_ids, _ = add_prompts(connection, key, [pair.prompt for pair in new])
    rows: dict[bytes, NewPair] = {}
    for pair in new:
        rows.setdefault(pair_digest(pair), pair)
    known = _ids(connection, pairs, rows)
    added = now_utc()
    new_rows = [_pair_row(digest, pair, prompt_ids, added) for digest, pair in rows.items() if digest not in known]
    if new_rows:
        connection.execute(insert(pairs), new_rows)
        fresh = _ids(connection, pairs, [row["digest"] for row in new_rows])
        _count_in(connection, key, [(fresh[row["digest"]], row["prompt"], row["gold"]) for row in new_rows])
        known |= fresh
    return known, len(new_rows)


def prompt_digest(prompt: NewPrompt) -> bytes:
    """Return the sha256 of a prompt's roles and messages, which identifies the prompt in the store.

    Raises:
        DataError: there is no message, the last is not a user's, one is more than text, or it holds a lone surrogate.
    """
    if not prompt.messages or prompt.messages[-1].role != "user":
        raise DataError(f"{_place(prompt)}a prompt must end with a user's message\n  fix: leave out the answer")
    if any(message.extra or message.role not in ("system", "user", "assistant") for message in prompt.messages):
        with_tools = any(message.calls or message.role in (TOOLS, "tool") for message in prompt.messages)
        problem = (
            f"a prompt holds {'tools or tool calls' if with_tools else 'thoughts'}, and a store of rankings holds only "
        )
        problem += "texts of system, user and assistant, which raters can read"
        raise DataError(f"{_place(prompt)}{problem}\n  fix: leave such rows out, or train on the file itself")
    return _digest([[message.role, message.content] for message in prompt.messages], prompt)


def pair_digest(pair: NewPair) -> bytes:
    """Return the sha256 of a pair's prompt and of its answers' texts and models, in either order.

    This digest identifies the pair in the store.
    """
    answers = sorted([answer.text, answer.model] for answer in (pair.first, pair.second))
    return _digest([prompt_digest(pair.prompt).hex(), answers], pair.prompt)


def all_prompts(connection: Connection) -> list[StoredPrompt]:
    """Return every prompt, in the order of insertion."""
    return [_prompt(row) for row in connection.execute(select(prompts).order_by(prompts.c.id))]


def unpaired(connection: Connection, per_prompt: int, limit: int) -> list[StoredPrompt]:
    """Return at most `limit` prompts with fewer than `per_prompt` pairs: the fewest first, then in random order.

    Prompts with a gold pair (its better answer is known) are left out, as other answers to that prompt would reveal it.
    """
    checks = select(pairs.c.id).where(pairs.c.prompt == prompts.c.id, pairs.c.gold.is_not(None)).exists()
    chosen = (
        select(prompts)
        .join(shares, shares.c.prompt == prompts.c.id)
        .where(shares.c.pairs < per_prompt, ~checks)
        .order_by(shares.c.pairs, shares.c.position)
        .limit(limit)
    )
    return [_prompt(row) for row in connection.execute(chosen)]


def all_pairs(connection: Connection) -> list[Pair]:
    """Return every pair, in the order of insertion."""
    by_id = {prompt.id: prompt for prompt in all_prompts(connection)}
    return [_pair(row, by_id[row.prompt]) for row in connection.execute(select(pairs).order_by(pairs.c.id))]


def some_pairs(connection: Connection, ids: Select[Any] | Sequence[int]) -> list[Pair]:
    """Return the pairs with these ids (a sequence, or a query that selects them), in the order of insertion."""
    rows = connection.execute(select(pairs).where(pairs.c.id.in_(ids)).order_by(pairs.c.id)).all()
    wanted = select(prompts).where(prompts.c.id.in_({row.prompt for row in rows}))
    by_id = {row.id: _prompt(row) for row in connection.execute(wanted)}
    return [_pair(row, by_id[row.prompt]) for row in rows]


def pair_of(connection: Connection, pair: int) -> Pair:
    """Return the pair with the id `pair`.

    Raises:
        DataError: the store has no such pair.
    """
    matches = some_pairs(connection, [pair]) if 0 < pair < 2**63 else []
    if not matches:
        raise DataError(f"pair {pair}: not in this store\n  fix: reload the page")
    return matches[0]


def reorder(connection: Connection, key: str) -> None:
    """Redraw the store's random order of pairs and prompts with another key (the store's secret and seed)."""
    for table, of, kind in ((tallies, tallies.c.pair, "pair"), (shares, shares.c.prompt, "prompt")):
        ids = connection.execute(select(of)).scalars().all()
        moved = update(table).where(of == bindparam("of")).values(position=bindparam("place"))
        for chunk in chunks(ids):
            connection.execute(moved, [{"of": number, "place": draw_position(key, kind, number)} for number in chunk])


def _count_in(connection: Connection, key: str, new_rows: Sequence[tuple[int, int, str | None]]) -> None:
    """Insert new pairs into the tables that count votes and pairs.

    Each new pair is (pair id, prompt id, side of the better answer if it is known, else None).
    """
    connection.execute(insert(tallies), [tally(key, pair, gold is not None) for pair, _, gold in new_rows])
    for gold, count in Counter(gold is not None for _, _, gold in new_rows).items():
        shift(connection, (gold, 0, 0), count)
    for prompt, count in Counter(prompt for _, prompt, gold in new_rows if gold is None).items():
        connection.execute(update(shares).where(shares.c.prompt == prompt).values(pairs=shares.c.pairs + count))


def tally(key: str, pair: int, gold: bool) -> dict[str, Any]:
    """Return the row that the table `tallies` (votes and state of each pair) gets for a new pair, before any vote."""
    return {
        "pair": pair,
        "gold": gold,
        "position": draw_position(key, "pair", pair),
        "votes": 0,
        "seen": 0,
        "latest": 0,
    }


def share(key: str, prompt: int) -> dict[str, Any]:
    """Return the row of a new prompt for the table `shares`, which counts the pairs of each prompt (0 at first)."""
    return {"prompt": prompt, "position": draw_position(key, "prompt", prompt), "pairs": 0}


def shift(connection: Connection, level: tuple[bool, int, int], count: int) -> None:
    """Add `count` to the number of pairs at one level in the table `levels`.

    A level is (pair is gold, votes without skips, votes with skips): the table counts how many pairs have each
    combination.
    """
    added = insert(levels).values(gold=level[0], votes=level[1], seen=level[2], pairs=count)
    columns = [levels.c.gold, levels.c.votes, levels.c.seen]
    connection.execute(
        added.on_conflict_do_update(index_elements=columns, set_={"pairs": levels.c.pairs + added.excluded.pairs})
    )


def _ids(connection: Connection, table: Table, digests: Iterable[bytes]) -> dict[bytes, int]:
    query = select(table.c.digest, table.c.id).where(table.c.digest.in_(list(digests)))
    return {row.digest: row.id for row in connection.execute(query)}


def _digest(value: Any, prompt: NewPrompt) -> bytes:
    try:
        return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).digest()
    except UnicodeEncodeError:
        raise DataError(f"{_place(prompt)}the text holds half a surrogate pair\n  fix: write it as UTF-8") from None


def _place(prompt: NewPrompt) -> str:
    return f"{excerpt(prompt.origin)[1:-1]}: " if prompt.origin else ""


def _prompt_row(digest: bytes, prompt: NewPrompt, added: str) -> dict[str, Any]:
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    tags = [mend_surrogates(tag) for tag in prompt.tags]
    return {
        "digest": digest,
        "messages": messages,
        "tags": tags,
        "origin": mend_surrogates(prompt.origin),
        "added": added,
    }


def _pair_row(digest: bytes, pair: NewPair, prompt_ids: Mapping[bytes, int], added: str) -> dict[str, Any]:
    row: dict[str, Any] = {"digest": digest, "prompt": prompt_ids[prompt_digest(pair.prompt)]}
    for side, answer in (("first", pair.first), ("second", pair.second)):
        row |= {side: answer.text, f"{side}_model": answer.model, f"{side}_sampling": dict(answer.sampling)}
    return row | {"gold": pair.gold, "added": added}


def _prompt(row: Any) -> StoredPrompt:
    messages = tuple(Message(turn["role"], turn["content"]) for turn in row.messages)
    return StoredPrompt(row.id, messages, tuple(row.tags), row.origin)


def _pair(row: Any, prompt: StoredPrompt) -> Pair:
    first = Answer(row.first, row.first_model, row.first_sampling)
    second = Answer(row.second, row.second_model, row.second_sampling)
    return Pair(row.id, prompt, first, second, row.gold, row.added)
