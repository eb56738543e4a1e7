"""The JSON between page and server. The page knows only A and B; here they become the store's first and second."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trueup.data.rendering.messages import Message
from trueup.data.votes.vote_types import (
    MOST_EDIT,
    MOST_NAME,
    MOST_NOTE,
    REASONS,
    STRENGTHS,
    Ballot,
    Choice,
    Pair,
    Side,
    Vote,
)
from trueup.ranking.page.markdown import plain, rendered

MOST_TOKEN = 200
"""Longest token of a link in characters."""
MOST_SECONDS = 1.0
"""CPU seconds for the Markdown of one screen; texts beyond are shown plain."""
MOST_TURNS, FIRST_TURNS, LAST_TURNS = 200, 20, 100
"""Of a prompt with more turns than MOST_TURNS only the first and the last ones are sent."""

Letter = Literal["a", "b"]
PageChoice = Literal["a", "b", "tie", "both_bad", "skip"]

RequestId = Annotated[str, Field(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JoinRequest(_Strict):
    """A visitor signs in by name."""

    name: str = Field(min_length=1, max_length=MOST_NAME)


class LinkRequest(_Strict):
    """A visitor signed in as another rater follows a link."""

    token: str = Field(min_length=1, max_length=MOST_TOKEN)


class VoteRequest(_Strict):
    """A vote on the pair on the screen; `a` is the hash of the answer shown as A."""

    request: RequestId
    pair: int = Field(ge=1, le=2**53, strict=True)
    a: str = Field(max_length=64)
    choice: PageChoice
    strength: int | None = Field(default=None, ge=min(STRENGTHS), le=max(STRENGTHS), strict=True)
    reasons: list[Literal[REASONS]] = Field(default_factory=list, max_length=len(REASONS))  # pyright: ignore[reportInvalidTypeForm] -- the store's own list
    note: str = Field(default="", max_length=MOST_NOTE)
    edit: str = Field(default="", max_length=MOST_EDIT)
    edit_of: Letter | None = None
    seconds: float | None = Field(default=None, ge=0, le=1e7, allow_inf_nan=False)


class UndoRequest(_Strict):
    """Undo of the last vote; `of` is the vote that the page knows as the last one, 0 if it knows none."""

    request: RequestId
    of: int | None = Field(default=None, ge=0, le=2**53, strict=True)


def answer_hash(text: str) -> str:
    """Return the hash by which a vote names answer A: it counts for the text that was read, whatever changed since."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def left_of(pair: Pair, a: str, otherwise: Side) -> Side | None:
    """Return the side that was A on the screen, by its hash; `otherwise` if both answers match, None if neither."""
    sides: list[Side] = [side for side in ("first", "second") if answer_hash(pair.answer(side).text) == a]
    return otherwise if len(sides) == 2 else next(iter(sides), None)


def ballot(request: VoteRequest, left: Side) -> Ballot:
    """Return a vote in the store's sides."""
    preferred = request.choice in ("a", "b")
    edited = request.edit if request.edit.strip() else ""
    return Ballot(
        request=request.request,
        pair=request.pair,
        choice=_side(request.choice, left),
        strength=request.strength if preferred else None,
        reasons=tuple(dict.fromkeys(request.reasons)),
        note=request.note.strip(),
        edit=edited,
        edit_of=_side(request.edit_of, left) if edited and request.edit_of else None,
        seconds=request.seconds,
    )


def vote_view(vote: Vote) -> dict[str, Any]:
    """Return a vote as the page shows it again after an undo."""
    given = vote.ballot
    return {
        "choice": _letter(given.choice, vote.left),
        "strength": given.strength,
        "reasons": [reason for reason in given.reasons if reason in REASONS],
        "note": given.note,
        "edit": given.edit,
        "edit_of": _letter(given.edit_of, vote.left) if given.edit_of else None,
    }


def pair_view(pair: Pair, left: Side) -> dict[str, Any]:
    """Return a pair for the screen, without models, gold or origin."""
    a, b = pair.answer(left).text, pair.answer(_other(left)).text
    until = time.thread_time() + MOST_SECONDS
    answers = {"a": _text(a, until), "b": _text(b, until)}  # before the prompt: they are what is ranked
    return {"id": pair.id, "print": answer_hash(a), "turns": _turns(pair.prompt.messages, until), **answers}


def _turns(messages: tuple[Message, ...], until: float) -> list[dict[str, Any]]:
    """Return a prompt's messages for the screen. The last one is rendered first, in case time runs out."""
    if len(messages) <= MOST_TURNS:
        return _message_views(messages, until)
    last = _message_views(messages[-LAST_TURNS:], until)
    left_out = len(messages) - FIRST_TURNS - LAST_TURNS
    return [*_message_views(messages[:FIRST_TURNS], until), {"left_out": left_out}, *last]


def _message_views(messages: Iterable[Message], until: float) -> list[dict[str, Any]]:
    backwards = [{"role": message.role, **_text(message.content, until)} for message in reversed([*messages])]
    return backwards[::-1]


def writing_view(prompt: tuple[Message, ...], a: str, b: str) -> dict[str, Any]:
    """Return two answers that are still being written, for the screen."""
    return {"turns": _turns(prompt, time.thread_time() + MOST_SECONDS), "a": plain(a), "b": plain(b)}


def _text(text: str, until: float) -> dict[str, Any]:
    """Return a text in all its forms. `text`, from which an edit starts, is None if longer than an edit may be."""
    html = rendered(text) if time.thread_time() < until else None
    return {"text": text if len(text) <= MOST_EDIT else None, "html": html, "plain": plain(text)}


def _other(side: Side) -> Side:
    return "second" if side == "first" else "first"


def _side(letter: Any, left: Side) -> Any:
    return {"a": left, "b": _other(left)}.get(letter, letter)


def _letter(choice: Choice, left: Side) -> str:
    return {left: "a", _other(left): "b"}.get(choice, choice)
