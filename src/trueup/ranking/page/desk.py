"""Handle the page's requests: a rater's screen (a pair, answers being written, or the end), votes and progress."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

from trueup.data.votes.header import StoreError
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Pair, Rater, RaterProgress
from trueup.errors import DataError
from trueup.ranking.page.aliases import Aliases
from trueup.ranking.page.limits import Refused
from trueup.ranking.page.wire import UndoRequest, VoteRequest, ballot, left_of, pair_view, vote_view, writing_view
from trueup.ranking.writing.ahead import PairInProgress

_PACE_OF = 20  # votes: the pace is the median of the last ones


def pairs_left(progress: RaterProgress, *, gold: int, gold_every: int) -> int:
    """Return about how many pairs a rater still has to vote on: ordinary ones, and gold ones likely between them.

    Gold pairs check a rater by their known better answer. The number falls by one at every vote, on a gold pair too: a
    count of the ordinary pairs alone would not, and so reveal it. So it is the rater's ordinary pairs, judged or not,
    and the gold pairs that are expected to come with them, less all that the rater has judged.

    Args:
        progress: the rater's progress.
        gold: the number of gold pairs in the store.
        gold_every: a pair is gold about once in this many; 0: never.
    """
    if not (gold_every and gold):
        return progress.left
    ordinary = progress.left + progress.mine + progress.skipped - progress.checks
    mean = ordinary / max(1, gold_every - 1)
    expected = min(gold, math.ceil(mean + math.sqrt(mean)))  # they come at random: seldom more than this
    return ordinary + expected - progress.mine - progress.skipped


class PageWriter(Protocol):
    """Interface of `writing.ahead.AnswerWriter`, the process that writes answers, as far as the page uses it."""

    @property
    def blind(self) -> bool: ...  # noqa: D102
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
        aliases: gives each rater's browser other numbers of pairs and votes than the store's.
    """

    store: Store
    ahead: PageWriter | None = None
    aliases: Aliases = field(init=False)

    def __post_init__(self) -> None:
        """Read the store's secret, from which the aliases are made."""
        object.__setattr__(self, "aliases", Aliases(self.store.salt))

    def state(self, rater: Rater) -> dict[str, Any]:
        """Return the content of this rater's screen, as JSON fields. A pair in it is leased to the rater.

        `kind` is "pair", "writing" (answers that are being written), "waiting", "failed" (no model can write) or
        "done"; `progress` is always included.
        """
        writer = self.ahead.state() if self.ahead else "done"  # before `next`: its last pair is then there
        shown = self.store.next(rater)
        if shown is not None:
            alias = self.aliases.alias("pair", rater.id, shown.pair.id)
            return self._with_progress(rater, kind="pair", pair=pair_view(shown.pair, shown.left, alias))
        if self.ahead is None or writer in ("done", "failed"):
            return self._with_progress(rater, kind=writer)
        return self._with_progress(rater, **self._being_written(rater, self.ahead))

    def progress(self, rater: Rater) -> dict[str, Any]:
        """Return this rater's progress as JSON fields (votes, skips, pairs left, ...), without leasing a pair."""
        return self._with_progress(rater, kind="progress")

    def vote(self, rater: Rater, request: VoteRequest) -> dict[str, Any]:
        """Put a vote into the store.

        Returns {"saved": alias of the vote, "choice", "state": content of the next screen}.

        Raises:
            DataError: the store refuses the vote.
            Refused: the store has no such pair, or its answers are not those that were on the screen.
        """
        pair = self._pair(rater, request.pair)
        left = left_of(pair, request.a, self.store.left_of(pair.prompt.id, rater))
        if left is None:
            raise Refused(409, "this pair has changed since it was shown: reload the page")
        try:
            vote = self.store.vote(rater, ballot(request, pair.id, left), left=left)
        except StoreError:
            raise
        except DataError as error:  # its number stays secret
            raise DataError(str(error).replace(f"pair {pair.id}:", "this pair:")) from error
        saved = self.aliases.alias("vote", rater.id, vote.id)
        return {"saved": saved, "choice": request.choice, "state": self.state(rater)}

    def undo(self, rater: Rater, undoing: UndoRequest) -> dict[str, Any]:
        """Undo the rater's last vote.

        Returns {"undone": that vote, or None if there is none, "returned": True if its pair is on the screen again,
        "state": content of the screen}. A pair does not return if other raters have given it the votes that it needs.

        Raises:
            DataError: the last vote is not the one that the page means.
        """
        of = undoing.of and self.aliases.number("vote", rater.id, undoing.of)
        vote = self.store.undo(rater, undoing.request, of=0 if of == "" else of)
        state = self.state(rater)  # of a pair that returned, as it is the rater's newest lease
        if vote is None:
            return {"undone": None, "returned": False, "state": state}
        alias = self.aliases.alias("pair", rater.id, vote.ballot.pair)
        returned = state["kind"] == "pair" and state["pair"]["id"] == alias
        return {"undone": vote_view(vote), "returned": returned, "state": state}

    def _pair(self, rater: Rater, alias: str) -> Pair:
        try:
            return self.store.pair(self.aliases.number("pair", rater.id, alias))
        except StoreError:
            raise
        except DataError as error:
            raise Refused(409, "this pair is not in the store: reload the page") from error

    def _being_written(self, rater: Rater, ahead: PageWriter) -> dict[str, Any]:
        ahead.ask()
        writing = ahead.writing()
        # Of several models one is slower: answers that grow on the screen would tell which one wrote which.
        # Written but not given to this rater: another rater has the pair.
        if writing is None or writing.done or ahead.blind:
            return {"kind": "waiting", "writer": ahead.state()}
        a, b = writing.first, writing.second
        if self.store.left_of(writing.prompt.id, rater) == "second":
            a, b = b, a
        return {"kind": "writing", "writing": writing_view(writing.prompt.messages, a, b)}

    def _with_progress(self, rater: Rater, *, kind: str, **rest: Any) -> dict[str, Any]:
        progress, gold_every = self.store.progress(rater), self.store.settings.gold_every
        left = pairs_left(progress, gold=self.store.counts().gold, gold_every=gold_every)
        left = max(1, left) if kind == "pair" or progress.left else 0  # the estimate may be too low
        seconds = [vote.ballot.seconds for vote in self.store.history(rater, _PACE_OF)]
        timed = [value for value in seconds if value is not None]
        return {
            "kind": kind,
            **rest,
            "progress": {
                "voted": progress.mine,
                "skipped": progress.skipped,
                "left": left,
                "last": None if progress.last is None else self.aliases.alias("vote", rater.id, progress.last),
                "pace": round(median(timed), 1) if timed else None,
            },
        }
