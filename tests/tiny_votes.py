"""Small stores of rankings for tests.

votes = make_store(tmp_path / "votes.db", "1", "12", "t", "", gold="2")     # pairs, and what each of their raters says
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from data.votes.store_examples import lease_pairs
from tiny_data import rows
from trueup.data.rendering.messages import Message
from trueup.data.votes.settings import remember
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Answer, Ballot, Choice, NewPair, NewPrompt
from trueup.errors import TrueupError

CHOICE_OF_LETTER: dict[str, Choice] = {"1": "first", "2": "second", "t": "tie", "b": "both_bad", "s": "skip"}


def new_pair(number: int, **more: Any) -> NewPair:
    """The pair of tiny_data's ranking `number` (from 0): first is the better one, of model good, the other of bad."""
    row = rows("rankings", number + 1)[number]
    prompt = NewPrompt((Message("user", row["prompt"]),), ("odd",) if number % 2 else (), f"prompts.jsonl:{number + 1}")
    first = Answer(row["chosen"], "good", {"temperature": 0.5, "seed": number})
    return NewPair(prompt, first, Answer(row["rejected"], "bad"), **more)


def make_store(path: Path, *said: str, gold: str = "", strength: int | None = None) -> Path:
    """A store with a pair for each of `said`: a letter of SAID for each of its raters a, b, c, ...

    Args:
        path: of the store.
        said: what the raters say of each pair.
        gold: the same, of a gold pair more, whose first answer is known to be better.
        strength: of every preference.
    """
    new = [new_pair(number) for number in range(len(said))]
    new += [replace(new_pair(len(said)), gold="first")] * bool(gold)
    with Store.open(path, create=True) as store:
        # As `configure` does, but without an event, so that the votes are the first ones.
        with store._database.writing() as connection:
            remember(connection, "settings", asdict(replace(store.settings, raters_per_pair=8)))
        store.add_pairs(new)
    for number, letters in enumerate([*said, *([gold] * bool(gold))], 1):
        vote(path, number, letters, strength=strength)
    return path


def vote(path: Path, pair: int, letters: str, *, strength: int | None = None, **more: Any) -> None:
    """Raters a, b, c, ... each say a letter of a pair; a space says nothing."""
    with Store.open(path) as store:
        for name, letter in zip("abcdefgh", letters, strict=False):
            if letter in CHOICE_OF_LETTER:
                given = strength if letter in "12" else None
                ballot = Ballot(f"{pair}-{store.last_event()}", pair, CHOICE_OF_LETTER[letter], given, **more)
                rater = store.rater(name)
                lease_pairs(store, rater, pair, held=True)
                store.vote(rater, ballot)


def undo(path: Path, rater: str) -> None:
    """A rater takes the last vote back."""
    with Store.open(path) as store:
        store.undo(store.rater(rater), f"undo-{store.last_event()}")


def checked_message(error: TrueupError) -> str:
    """An error's message, once it has the form that all of them have."""
    message = str(error)
    assert "\n  fix: " in message
    assert len(message.splitlines()) <= 6
    assert len(message) < 2000
    assert all(char.isprintable() or char == "\n" for char in message)
    return message
