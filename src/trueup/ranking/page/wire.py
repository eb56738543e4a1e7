"""The JSON between page and server, checked by pydantic.

The page knows only answers A and B, whose sides are drawn; here they become the store's first and second answer.
"""

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

NumberAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""Alias of a pair's or vote's number in the store (see `aliases`)."""

RequestId = Annotated[str, Field(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JoinRequest(_Strict):
    """Request of a visitor to sign in by name."""

    name: str = Field(min_length=1, max_length=MOST_NAME)


class LinkRequest(_Strict):
    """Request to sign in as the rater of a link, sent by a visitor who is signed in as another rater."""

    token: str = Field(min_length=1, max_length=MOST_TOKEN)


class VoteRequest(_Strict):
    """Request to store a vote on the pair on the screen.

    `pair` is the pair's alias, `a` the hash of the answer shown as A.
    """

    request: RequestId
    pair: NumberAlias
    a: str = Field(max_length=64)
    choice: PageChoice
    strength: int | None = Field(default=None, ge=min(STRENGTHS), le=max(STRENGTHS), strict=True)
    reasons: list[Literal[REASONS]] = Field(default_factory=list, max_length=len(REASONS))  # pyright: ignore[reportInvalidTypeForm] -- the store's own list
    note: str = Field(default="", max_length=MOST_NOTE)
    edit: str = Field(default="", max_length=MOST_EDIT)
    edit_of: Letter | None = None
    seconds: float | None = Field(default=None, ge=0, le=1e7, allow_inf_nan=False)


class UndoRequest(_Strict):
    """Request to undo the rater's last vote.

    `of` is the alias of the last vote that the page knows, "" if it knows none; None: the last one, whichever it is.
    """

    request: RequestId
    of: NumberAlias | Literal[""] | None = None


def answer_hash(text: str) -> str:
    """Return the hash by which a vote names the text of answer A: it counts for the text that the rater read."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def left_of(pair: Pair, a: str, otherwise: Side) -> Side | None:
    """Return which answer of the pair ("first" or "second") was shown as A, given `a`, the hash of the text shown as A.

    If both answers have that hash, it is `otherwise`; if neither has (the pair has changed since), None.
    """
    sides: list[Side] = [side for side in ("first", "second") if answer_hash(pair.answer(side).text) == a]
    return otherwise if len(sides) == 2 else next(iter(sides), None)


def ballot(request: VoteRequest, pair: int, left: Side) -> Ballot:
    """Return the page's vote as a ballot for the store.

    `pair` is the pair's number there; A (`left` in the store) and B become first and second.
    """
    preferred = request.choice in ("a", "b")
    edited = request.edit if request.edit.strip() else ""
    return Ballot(
        request=request.request,
        pair=pair,
        choice=_side(request.choice, left),
        strength=request.strength if preferred else None,
        reasons=tuple(dict.fromkeys(request.reasons)),
        note=request.note.strip(),
        edit=edited,
        edit_of=_side(request.edit_of, left) if edited and request.edit_of else None,
        seconds=request.seconds,
    )


def vote_view(vote: Vote) -> dict[str, Any]:
    """Return a vote as JSON fields, with which the page fills in its form again after an undo."""
    given = vote.ballot
    return {
        "choice": _letter(given.choice, vote.left),
        "strength": given.strength,
        "reasons": [reason for reason in given.reasons if reason in REASONS],
        "note": given.note,
        "edit": given.edit,
        "edit_of": _letter(given.edit_of, vote.left) if given.edit_of else None,
    }


def pair_view(pair: Pair, left: Side, alias: str) -> dict[str, Any]:
    """Return a pair as JSON fields for the screen, without the models' names, the known better answer or the origin.

    Keys: `id`, the pair's `alias`; `print`, the hash of answer A; `turns`, the prompt's messages; `a` and `b`, the
    answers. `left` is the answer shown as A.
    """
    a, b = pair.answer(left).text, pair.answer(_other(left)).text
    until = time.thread_time() + MOST_SECONDS
    answers = {"a": _text(a, until), "b": _text(b, until)}  # before the prompt: they are what is ranked
    return {"id": alias, "print": answer_hash(a), "turns": _turns(pair.prompt.messages, until), **answers}


def _turns(messages: tuple[Message, ...], until: float) -> list[dict[str, Any]]:
    """Return a prompt's messages as JSON fields for the screen; the middle of a very long prompt is left out.

    The last message is rendered first, in case the CPU time runs out at `until`.
    """
    if len(messages) <= MOST_TURNS:
        return _message_views(messages, until)
    last = _message_views(messages[-LAST_TURNS:], until)
    left_out = len(messages) - FIRST_TURNS - LAST_TURNS
    return [*_message_views(messages[:FIRST_TURNS], until), {"left_out": left_out}, *last]


def _message_views(messages: Iterable[Message], until: float) -> list[dict[str, Any]]:
    backwards = [{"role": message.role, **_text(message.content, until)} for message in reversed([*messages])]
    return backwards[::-1]


def writing_view(prompt: tuple[Message, ...], a: str, b: str) -> dict[str, Any]:
    """Return two answers that are still being written as JSON fields: `turns` (the prompt), `a` and `b`."""
    return {"turns": _turns(prompt, time.thread_time() + MOST_SECONDS), "a": plain(a), "b": plain(b)}


def _text(text: str, until: float) -> dict[str, Any]:
    """Return a text as JSON fields: `text` as written, `html` rendered from Markdown, and `plain` as escaped HTML.

    `html` is None if the CPU time ran out at `until`; `text`, from which an edit starts, is None if longer than an edit
    may be.
    """
    html = rendered(text) if time.thread_time() < until else None
    return {"text": text if len(text) <= MOST_EDIT else None, "html": html, "plain": plain(text)}


def _other(side: Side) -> Side:
    return "second" if side == "first" else "first"


def _side(letter: Any, left: Side) -> Any:
    return {"a": left, "b": _other(left)}.get(letter, letter)


def _letter(choice: Choice, left: Side) -> str:
    return {left: "a", _other(left): "b"}.get(choice, choice)
