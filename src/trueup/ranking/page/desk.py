"""Handle the page's requests: a rater's screen (a pair, answers being written, or the end), votes and progress."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Pair, Rater, RaterProgress
from trueup.ranking.page.limits import Refused
from trueup.ranking.page.wire import UndoRequest, VoteRequest, ballot, left_of, pair_view, vote_view, writing_view
from trueup.ranking.writing.ahead import PairInProgress

_ALL = 10**9  # votes


class Remaining:
    """Estimator of how many pairs a rater has left: ordinary ones, and the gold ones likely to come between them.

    A gold pair checks the rater by its known better answer. A count of ordinary pairs alone would not fall at a gold
    pair, and so reveal it.

    A count of ordinary pairs alone would not fall at a gold pair, and so reveal it.
    """

    def __init__(self, store: Store) -> None:
        """Keep the store; nothing is read yet."""
        self._store = store
        self._checks: dict[int, set[int]] = {}  # rater -> gold pairs voted on
        self._lock = threading.Lock()

    def voted(self, rater: Rater, pair: Pair) -> None:
        """Note that a rater has voted on a pair: a gold pair is then no longer expected."""
        if pair.gold:
            self._of(rater).add(pair.id)

    def undone(self, rater: Rater, pair: Pair) -> None:
        """Note that a rater has undone the vote on a pair: a gold pair is then expected again."""
        if pair.gold:
            self._of(rater).discard(pair.id)

    def left(self, rater: Rater, progress: RaterProgress) -> int:
        """Return about how many pairs this rater still has to vote on; 0 exactly if no ordinary pair is left."""
        every, gold = self._store.settings.gold_every, self._store.counts().gold
        if not (progress.left and every and gold):
            return progress.left
        done = len(self._of(rater))
        mean = (progress.left + progress.mine + progress.skipped - done) / max(1, every - 1)
        most = min(gold, math.ceil(mean + math.sqrt(mean)))  # they come at random: seldom more than this
        return progress.left + max(0, most - done)

    def _of(self, rater: Rater) -> set[int]:
        with self._lock:
            if rater.id not in self._checks:
                pairs = [vote.ballot.pair for vote in self._store.history(rater, _ALL)]
                self._checks[rater.id] = {pair for pair in pairs if self._store.pair(pair).gold}
            return self._checks[rater.id]


_PACE_OF = 20  # votes: the pace is the median of the last ones


class PageWriter(Protocol):
    """Interface of `writing.ahead.AnswerWriter`, the process that writes answers, as far as the page uses it."""

    @property
    def problem(self) -> str: ...  # noqa: D102
    def start(self) -> None: ...  # noqa: D102
    def stop(self, timeout: float) -> None: ...  # noqa: D102
    def ask(self) -> None: ...  # noqa: D102
    def writing(self) -> PairInProgress | None: ...  # noqa: D102
    def state(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class RankingService:
    """Handler of the page's requests for pairs, votes and progress. Safe to use from many threads.

    Attributes:
        store: holds pairs and votes.
        ahead: the process that writes answers; None if no model does.
        remaining: estimates how many pairs a rater has left.
    """

    store: Store
    ahead: PageWriter | None = None
    remaining: Remaining = field(init=False)

    def __post_init__(self) -> None:
        """Create the estimator of how many pairs a rater of this store has left."""
        object.__setattr__(self, "remaining", Remaining(self.store))

    def state(self, rater: Rater) -> dict[str, Any]:
        """Return the content of this rater's screen, as JSON fields. A pair in it is leased to the rater.

        `kind` is "pair", "writing" (answers that are being written), "waiting", "failed" (no model can write) or
        "done"; `progress` is always included.
        """
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
        """Return this rater's progress as JSON fields (votes, skips, pairs left, ...), without leasing a pair."""
        return self._with_progress(rater, kind="progress")

    def vote(self, rater: Rater, request: VoteRequest) -> dict[str, Any]:
        """Put a vote into the store. Returns {"saved": id of the vote, "choice", "state": content of the next screen}.

        Raises:
            DataError: the store refuses the vote.
            Refused: the pair's answers are not those that were on the screen.
        """
        pair = self.store.pair(request.pair)
        left = left_of(pair, request.a, self.store.left_of(pair.prompt.id, rater))
        if left is None:
            raise Refused(409, "this pair has changed since it was shown: reload the page")
        vote = self.store.vote(rater, ballot(request, left), left=left)
        self.remaining.voted(rater, pair)
        return {"saved": vote.id, "choice": request.choice, "state": self.state(rater)}

    def undo(self, rater: Rater, undoing: UndoRequest) -> dict[str, Any]:
        """Undo the rater's last vote. Returns {"undone": that vote, "state": a screen with its pair on the same sides}.

        If there is no vote to undo, "undone" is None and the screen is the current one.

        Raises:
            DataError: the last vote is not the one that the page means.
        """
        vote = self.store.undo(rater, undoing.request, of=undoing.of)
        if vote is None:
            return {"undone": None, "state": self.state(rater)}
        pair = self.store.pair(vote.ballot.pair)
        self.remaining.undone(rater, pair)
        state = self._with_progress(rater, kind="pair", pair=pair_view(pair, vote.left))
        return {"undone": vote_view(vote), "state": state}

    def _being_written(self, rater: Rater, ahead: PageWriter) -> dict[str, Any]:
        ahead.ask()
        writing = ahead.writing()
        if writing is None or writing.done:  # done, but not given to this rater: another rater has it
            return {"kind": "waiting", "writer": ahead.state()}
        a, b = writing.first, writing.second
        if self.store.left_of(writing.prompt.id, rater) == "second":
            a, b = b, a
        return {"kind": "writing", "writing": writing_view(writing.prompt.messages, a, b)}

    def _with_progress(self, rater: Rater, **rest: Any) -> dict[str, Any]:
        progress = self.store.progress(rater)
        seconds = [vote.ballot.seconds for vote in self.store.history(rater, _PACE_OF)]
        timed = [value for value in seconds if value is not None]
        return rest | {
            "progress": {
                "voted": progress.mine,
                "skipped": progress.skipped,
                "left": self.remaining.left(rater, progress),
                "last": progress.last,
                "pace": round(median(timed), 1) if timed else None,
            }
        }
