"""The public class of a vote store; each method is one transaction, whose changes are on disk when it returns."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from trueup.data.votes import choosing, content, counting, importing, leases, raters, scoring, settings, votes
from trueup.data.votes.content import left_side
from trueup.data.votes.database import Database
from trueup.data.votes.importing import ImportedVote
from trueup.data.votes.vote_types import (
    AddedCounts,
    Ballot,
    NewPair,
    NewPrompt,
    Pair,
    Rater,
    RaterProgress,
    ShownPair,
    Side,
    StoredPrompt,
    StoreSettings,
    Vote,
    VoteCounts,
)


class Store:
    """A vote store: prompts, pairs of answers, raters and votes in one SQLite file.

    Any thread may call any method, and any number of processes may have the file open. Times `now` are Unix seconds.
    Every method raises StoreError, a DataError, if the file cannot be read or written; nothing was written then.
    """

    def __init__(self, database: Database) -> None:
        """Wrap an open database; call `Store.open` instead."""
        self._database = database
        self._marks: choosing.SearchMarks = {}

    @classmethod
    def open(cls, path: str | Path, *, create: bool = False, read_only: bool = False) -> Store:
        """Open a store.

        Args:
            path: the SQLite file.
            create: create the file if it is missing.
            read_only: only methods that read may be called; the file and its folder need not be writable.

        Raises:
            DataError: the file is missing, not a store, of a newer version, or not writable.
        """
        opened = cls(Database(Path(path), create=create, read_only=read_only))
        try:
            if not (read_only or opened.salt):
                with opened._database.writing() as connection:
                    settings.complete(connection)
        except BaseException:
            opened.close()
            raise
        return opened

    @property
    def path(self) -> Path:
        """The path of the SQLite file."""
        return self._database.path

    def close(self) -> None:
        """Wait for the current write, then close the file. May be called twice."""
        self._database.close()

    @contextmanager
    def discarded_on_error(self, *, is_new: bool) -> Iterator[None]:
        """Delete the store's file if the block fails and `is_new`: a store that was just made is not left empty."""
        try:
            yield
        except BaseException:
            if is_new:
                self.close()
                for end in ("", "-wal", "-shm"):
                    Path(f"{self.path}{end}").unlink(missing_ok=True)
            raise

    def __enter__(self) -> Store:
        """Return the store, for a `with` statement."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    # Settings

    @property
    def settings(self) -> StoreSettings:
        """The current settings."""
        with self._database.reading() as connection:
            return settings.current(connection)

    @property
    def salt(self) -> str:
        """The store's random secret, which keeps raters from predicting random choices, e.g. of gold pairs.

        Never export it.
        """
        with self._database.reading() as connection:
            return settings.salt(connection)

    def configure(self, new: StoreSettings) -> None:
        """Change the settings; if they differ from the current ones, the change is stored as an event.

        Raises:
            ConfigError: a value is out of range, e.g. `raters_per_pair` is 0.
        """
        with self._database.writing() as connection:
            settings.configure(connection, new)

    # Prompts and pairs

    def add_prompts(self, new: Iterable[NewPrompt]) -> AddedCounts:
        """Add prompts, and return how many were new; a prompt whose messages are stored already counts as known.

        Raises:
            DataError: a prompt does not end with a user's message. Of a long input, the chunks before that prompt are
                stored.
        """
        new_count = total = 0
        for chunk in content.chunks(new):
            with self._database.writing() as connection:
                new_count += content.add_prompts(connection, settings.key(connection), chunk)[1]
            total += len(chunk)
        return AddedCounts(new_count, total - new_count)

    def add_pairs(self, new: Iterable[NewPair]) -> AddedCounts:
        """Add pairs with their prompts, and return how many pairs were new.

        A pair with the prompt, texts and models of a stored one, in either order of the answers, counts as known.

        Raises:
            DataError: a prompt does not end with a user's message. Of a long input, the chunks before that pair are
                stored.
        """
        new_count = total = 0
        for chunk in content.chunks(new):
            with self._database.writing() as connection:
                new_count += content.add_pairs(connection, settings.key(connection), chunk)[1]
            total += len(chunk)
        return AddedCounts(new_count, total - new_count)

    def prompts(self) -> list[StoredPrompt]:
        """Return every prompt, in the order of insertion."""
        with self._database.reading() as connection:
            return content.all_prompts(connection)

    def pairs(self) -> list[Pair]:
        """Return every pair, in the order of insertion."""
        with self._database.reading() as connection:
            return content.all_pairs(connection)

    def pair(self, pair: int) -> Pair:
        """Return the pair with the id `pair`.

        Raises:
            DataError: the store has no such pair.
        """
        with self._database.reading() as connection:
            return content.pair_of(connection, pair)

    def counts(self) -> VoteCounts:
        """Return the number of prompts, pairs, gold pairs, raters and votes, and the id of the last event."""
        with self._database.reading() as connection:
            return counting.counts(connection)

    def unpaired(self, per_prompt: int, limit: int) -> list[StoredPrompt]:
        """Return at most `limit` prompts with fewer than `per_prompt` pairs: the fewest first, then in random order.

        Prompts with a gold pair (its better answer is known) are left out: other answers to that prompt would reveal
        it.
        """
        with self._database.reading() as connection:
            return content.unpaired(connection, per_prompt, limit)

    def fresh(self, *, now: float | None = None) -> int:
        """Return the number of pairs, without gold ones, that nobody has voted on, skipped or leased (reserved)."""
        with self._database.reading() as connection:
            seconds = settings.current(connection).lease_seconds
            return counting.fresh(connection, leases.live(_time(now), seconds))

    # Raters

    def rater(self, name: str) -> Rater:
        """Return the rater with that name, added if new.

        Raises:
            DataError: the name is empty, too long, or holds control characters.
        """
        name = raters.normalize_name(name)
        with self._database.reading() as connection:
            rater = raters.find_rater(connection, name)
        if rater is not None:
            return rater
        with self._database.writing() as connection:
            return raters.find_or_add_rater(connection, name)

    def raters(self) -> list[Rater]:
        """Return all raters, in the order they were added."""
        with self._database.reading() as connection:
            return raters.all_raters(connection)

    def invite(self, name: str) -> str:
        """Return a new secret with which the named rater can sign in; a new rater is added.

        Only the secret's sha256 is stored.
        """
        name = raters.normalize_name(name)
        with self._database.writing() as connection:
            return raters.new_secret(connection, raters.find_or_add_rater(connection, name), "invitation")

    def rater_of(self, token: str) -> Rater | None:
        """Return the rater whom the invitation's secret `token` signs in; None if it is unknown."""
        with self._database.reading() as connection:
            return raters.rater_of_invitation(connection, token)

    def session(self, rater: Rater, *, guest: bool = False) -> str:
        """Return a new secret for the cookie that keeps a rater signed in; only the secret's sha256 is stored.

        `guest` marks a rater who signed in by typing a name, without an invitation.
        """
        with self._database.writing() as connection:
            return raters.new_secret(connection, rater, "session", guest=guest)

    def rater_of_session(self, secret: str, *, guests: bool = True, now: float | None = None) -> Rater | None:
        """Return the rater whom the session's secret belongs to.

        None if the secret is unknown or older than 30 days, or if `guests` is False and the session was begun without
        an invitation.
        """
        with self._database.reading() as connection:
            return raters.rater_of_session(connection, secret, guests=guests, now=_time(now))

    def end_session(self, secret: str) -> None:
        """Sign a rater out: delete the session with this secret."""
        with self._database.writing() as connection:
            raters.end_session(connection, secret)

    # Voting

    def next(self, rater: Rater, *, now: float | None = None) -> ShownPair | None:
        """Return the pair that a rater is to judge next, and lease it (reserve it for that rater for `lease_seconds`).

        A pair that is leased to the rater already is returned again. None if there is no pair for this rater now.
        """
        with self._database.writing() as connection:
            return choosing.choose(connection, rater, settings.current(connection), self._marks, _time(now))

    def left_of(self, prompt_id: int, rater: Rater) -> Side:
        """Return the side ("first" or "second") whose answer to the prompt this rater sees on the left, as A."""
        with self._database.reading() as connection:
            return left_side(settings.key(connection), prompt_id, rater.id)

    def release(self, rater: Rater, *, now: float | None = None) -> None:
        """Expire a rater's leases (reservations), so that the pairs can be shown to others."""
        with self._database.writing() as connection:
            leases.end(connection, rater, _time(now))

    def vote(self, rater: Rater, ballot: Ballot, *, left: Side | None = None, now: float | None = None) -> Vote:
        """Add a vote, which is on disk when this returns.

        A ballot whose request id was sent before changes nothing and returns the first vote.

        Args:
            rater: the person who votes.
            ballot: the judgement, with the id of its pair.
            left: the side shown as A; by default the one stored when the pair was shown, else that of `left_of`.
            now: the time in Unix seconds; None: the current time.

        Raises:
            DataError: the ballot is invalid, the rater has voted on the pair already or was never shown it, or the pair
                needs no more votes: other raters got it while it was not reserved for this one.
        """
        with self._database.writing() as connection:
            current = settings.current(connection)
            return votes.cast(connection, rater, ballot, current, _time(now), left=left)

    def undo(self, rater: Rater, request: str, *, of: int | None = None, now: float | None = None) -> Vote | None:
        """Undo the rater's last vote that is not undone yet, and lease its pair to the rater again.

        After a skip it is not leased if other raters have given the pair the votes that it needs.

        Args:
            rater: the person whose vote is undone.
            request: id of this request; a request sent twice undoes one vote only.
            of: the id of the vote to undo, from `RaterProgress.last`; None: the last one.
            now: the time in Unix seconds; None: the current time.

        Returns:
            The vote that was undone; None if there was none.

        Raises:
            DataError: the request id was used for a vote, or the last vote is not `of`; nothing was undone.
        """
        with self._database.writing() as connection:
            return votes.undo(connection, rater, request, settings.current(connection), _time(now), of=of)

    def progress(self, rater: Rater, *, now: float | None = None) -> RaterProgress:
        """Return the progress of a rater and of the store: the number of pairs judged, skipped, left and complete."""
        with self._database.reading() as connection:
            current = settings.current(connection)
            live = leases.live(_time(now), current.lease_seconds)
            return counting.progress(connection, rater, current.raters_per_pair, live)

    # Votes

    def votes(self, until: int | None = None) -> list[Vote]:
        """Return the votes that were not undone as of event number `until` (None: now), oldest first."""
        with self._database.reading() as connection:
            return votes.standing_votes(connection, until)

    def history(self, rater: Rater, limit: int = 20) -> list[Vote]:
        """Return the newest `limit` votes of a rater that were not undone, the latest first."""
        with self._database.reading() as connection:
            return votes.history(connection, rater, limit)

    def last_event(self) -> int:
        """Return the id of the latest event (vote, undo or change of settings); 0 if there is none."""
        with self._database.reading() as connection:
            return counting.last_event(connection)

    def import_votes(self, given: Iterable[ImportedVote]) -> AddedCounts:
        """Add votes from files with their pairs, all or none, and return how many were new.

        Raises:
            DataError: a ballot is invalid, or contradicts the stored vote of its rater on that pair.
        """
        new_count = total = 0
        with self._database.writing() as connection:
            key = settings.key(connection)
            for chunk in content.chunks(given):
                new_count += importing.add(connection, key, chunk)
                total += len(chunk)
        return AddedCounts(new_count, total - new_count)

    # Scores of a reward model

    def score(self, model: str, margins: Mapping[int, float]) -> None:
        """Store a reward model's margins {pair id: r(first) - r(second)}, in nats.

        From now on, this model's uncertainties can order the pairs (setting `policy`).

        Raises:
            DataError: a margin is not a finite number, or the store has no such pair.
        """
        with self._database.writing() as connection:
            scoring.score(connection, model, margins)

    def unscored(self, model: str, limit: int) -> list[Pair]:
        """Return at most `limit` of the newest pairs that the reward model `model` has not scored."""
        with self._database.reading() as connection:
            return scoring.unscored(connection, model, limit)

    def rebuild(self) -> None:
        """Recompute the tables that are derived from pairs and events, e.g. the votes of each pair."""
        with self._database.writing() as connection:
            counting.rebuild(connection, settings.key(connection))
            scoring.apply(connection)


def _time(now: float | None) -> float:
    return time.time() if now is None else now
