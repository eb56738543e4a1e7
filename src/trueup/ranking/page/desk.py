"""What lies before a rater: a pair, answers that are being written, or the end. And what becomes of a vote."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

from trueup.data.votes import Prompt, Rater, Store
from trueup.ranking.page.limits import Refused
from trueup.ranking.page.remaining import Remaining
from trueup.ranking.page.wire import Undoing, Voting, ballot, left_of, pair_view, said_of, writing_view

_PACE_OF = 20  # the last votes that the pace is the median of


class Writing(Protocol):
    """Two answers that are being written."""

    @property
    def prompt(self) -> Prompt: ...  # noqa: D102 -- as in ranking.ahead
    @property
    def first(self) -> str: ...  # noqa: D102
    @property
    def second(self) -> str: ...  # noqa: D102
    @property
    def done(self) -> bool: ...  # noqa: D102


class Writer(Protocol):
    """What the page asks of the models that write ahead (`ranking.ahead.Ahead`)."""

    @property
    def problem(self) -> str: ...  # noqa: D102
    def start(self) -> None: ...  # noqa: D102
    def stop(self, timeout: float) -> None: ...  # noqa: D102
    def ask(self) -> None: ...  # noqa: D102
    def writing(self) -> Writing | None: ...  # noqa: D102
    def state(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Desk:
    """The store and the models, as a page sees them. Safe to use from many threads.

    Attributes:
        store: where the pairs are, and the votes go.
        ahead: the models that write; None where all pairs are there.
        remaining: how many pairs a rater has left.
    """

    store: Store
    ahead: Writer | None = None
    remaining: Remaining = field(init=False)

    def __post_init__(self) -> None:
        """What is left is counted from this store."""
        object.__setattr__(self, "remaining", Remaining(self.store))

    def state(self, rater: Rater) -> dict[str, Any]:
        """What this rater's screen shows now. A pair is leased to the rater."""
        writer = self.ahead.state() if self.ahead else "done"  # before `next`: its last pair is then there
        shown = self.store.next(rater)
        if shown is not None:
            return self._with_progress(rater, kind="pair", pair=pair_view(shown.pair, shown.left))
        if self.ahead is None or writer == "done":
            return self._with_progress(rater, kind="done")
        if writer == "failed":
            return self._with_progress(rater, kind="failed", problem=self.ahead.problem)
        return self._with_progress(rater, **self._being_written(rater, self.ahead))

    def progress(self, rater: Rater) -> dict[str, Any]:
        """How far this rater is, without taking a pair."""
        return self._with_progress(rater, kind="progress")

    def vote(self, rater: Rater, said: Voting) -> dict[str, Any]:
        """Put a vote into the store, then give what comes next.

        Raises:
            DataError: the store refuses it.
            Refused: the pair's answers are not those that were on the screen.
        """
        pair = self.store.pair(said.pair)
        left = left_of(pair, said.a, self.store.left_of(pair.prompt.id, rater))
        if left is None:
            raise Refused(409, "this pair has changed since it was shown: reload the page")
        vote = self.store.vote(rater, ballot(said, left), left=left)
        self.remaining.voted(rater, pair)
        return {"saved": vote.id, "choice": said.choice, "state": self.state(rater)}

    def undo(self, rater: Rater, undoing: Undoing) -> dict[str, Any]:
        """Take the rater's last vote back and give its pair again, on the same sides.

        Raises:
            DataError: it is not the one that the page means.
        """
        vote = self.store.undo(rater, undoing.request, of=undoing.of)
        if vote is None:
            return {"undone": None, "state": self.state(rater)}
        pair = self.store.pair(vote.ballot.pair)
        self.remaining.undone(rater, pair)
        state = self._with_progress(rater, kind="pair", pair=pair_view(pair, vote.left))
        return {"undone": said_of(vote), "state": state}

    def _being_written(self, rater: Rater, ahead: Writer) -> dict[str, Any]:
        ahead.ask()
        writing = ahead.writing()
        if writing is None or writing.done:  # done, and not given to this rater: another has it
            return {"kind": "waiting", "writer": ahead.state()}
        a, b = writing.first, writing.second
        if self.store.left_of(writing.prompt.id, rater) == "second":
            a, b = b, a
        return {"kind": "writing", "writing": writing_view(writing.prompt.messages, a, b)}

    def _with_progress(self, rater: Rater, **rest: Any) -> dict[str, Any]:
        progress = self.store.progress(rater)
        seconds = [vote.ballot.seconds for vote in self.store.history(rater, _PACE_OF)]
        timed = [one for one in seconds if one is not None]
        return rest | {
            "progress": {
                "voted": progress.mine,
                "skipped": progress.skipped,
                "left": self.remaining.left(rater, progress),
                "last": progress.last,
                "pace": round(median(timed), 1) if timed else None,
            }
        }
