"""How many pairs a rater has left, told so that it falls by one at each vote: also at one that checks the rater."""

from __future__ import annotations

import math
import threading

from trueup.data.votes import Pair, Progress, Rater, Store

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

    def left(self, rater: Rater, progress: Progress) -> int:
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
