"""What lies before a rater: a pair, answers that are being written, or the end. And what becomes of a vote."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Pair, Rater, RaterProgress, StoredPrompt
from trueup.ranking.page.limits import Refused
from trueup.ranking.page.wire import Undoing, Voting, ballot, left_of, pair_view, said_of, writing_view

_ALL = 10**9  # votes


class Remaining:
    """An estimate: the pairs there are, and about as many checks as will come between them.

    A count of ordinary pairs alone would stand still at every check, and so tell the rater which pair it was.
    """

    def __init__(self, store: Store) -> None:
        """Nothing is read yet."""
        self._store = store
        self._checks: dict[int, set[int]] = {}  # rater -> gold pairs voted on
        self._lock = threading.Lock()

    def voted(self, rater: Rater, pair: Pair) -> None:
        """The rater has voted on a pair."""
        if pair.gold:
            self._of(rater).add(pair.id)

    def undone(self, rater: Rater, pair: Pair) -> None:
        """The rater took a vote back."""
        if pair.gold:
            self._of(rater).discard(pair.id)

    def left(self, rater: Rater, progress: RaterProgress) -> int:
        """How many pairs are left, about; 0 exactly where no ordinary pair is."""
        every, there = self._store.settings.gold_every, self._store.counts().gold
        if not (progress.left and every and there):
            return progress.left
        done = len(self._of(rater))
        mean = (progress.left + progress.mine + progress.skipped - done) / max(1, every - 1)
        most = min(there, math.ceil(mean + math.sqrt(mean)))  # the draw is by chance: seldom more than so many come
        return progress.left + max(0, most - done)

    def _of(self, rater: Rater) -> set[int]:
        with self._lock:
            if rater.id not in self._checks:
                pairs = [vote.ballot.pair for vote in self._store.history(rater, _ALL)]
                self._checks[rater.id] = {one for one in pairs if self._store.pair(one).gold}
            return self._checks[rater.id]


_PACE_OF = 20  # the last votes that the pace is the median of


class Writing(Protocol):
    """Two answers that are being written."""

    @property
    def prompt(self) -> StoredPrompt: ...  # noqa: D102 -- as in ranking.ahead
    @property
    def first(self) -> str: ...  # noqa: D102
    @property
    def second(self) -> str: ...  # noqa: D102
    @property
    def done(self) -> bool: ...  # noqa: D102


class Writer(Protocol):
    """What the page asks of the models that write ahead (`writing.ahead.AnswerWriter`)."""

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
