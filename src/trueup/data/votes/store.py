"""The store as the rest of trueup sees it: each method is one transaction, on the disk when it returns."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
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
    """Prompts, pairs, raters and what they said, in one SQLite file.

    Any thread may call any method, and any number of processes may have the file open. Times `now` are Unix seconds.
    Every method raises StoreError, a DataError, when the disk refuses; nothing was written then.
    """

    def __init__(self, database: Database) -> None:
        """Use `Store.open`."""
        self._database = database
        self._marks: choosing.SearchMarks = {}

    @classmethod
    def open(cls, path: str | Path, *, create: bool = False, read_only: bool = False) -> Store:
        """Open a store.

        Args:
            path: the file.
            create: make one where there is nothing.
            read_only: only methods that read are called; the file and its folder need not be writable.

        Raises:
            DataError: nothing is there, no store, one of a newer version, or it cannot be written.
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
        """The file."""
        return self._database.path

    def close(self) -> None:
        """Wait for the write that goes on, and close the file. May be called twice."""
        self._database.close()

    def __enter__(self) -> Store:
        """Use it in a `with` statement."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    # How it is ranked

    @property
    def settings(self) -> StoreSettings:
        """The settings that count now."""
        with self._database.reading() as connection:
            return settings.current(connection)

    @property
    def salt(self) -> str:
        """The store's secret: what is drawn by it, no rater can work out. It is not to leave this machine."""
        with self._database.reading() as connection:
            return settings.salt(connection)

    def configure(self, new: StoreSettings) -> None:
        """Let other settings count from now on; an event when they differ.

        Raises:
            ConfigError: one cannot be meant.
        """
        with self._database.writing() as connection:
            settings.configure(connection, new)

    # What is ranked

    def add_prompts(self, new: Iterable[NewPrompt]) -> AddedCounts:
        """Put in prompts; one of the same messages is known.

        Raises:
            DataError: a prompt does not end with a user's message; those of earlier chunks are in.
        """
        made = given = 0
        for chunk in content.chunks(new):
            with self._database.writing() as connection:
                made += content.add_prompts(connection, settings.key(connection), chunk)[1]
            given += len(chunk)
        return AddedCounts(made, given - made)

    def add_pairs(self, new: Iterable[NewPair]) -> AddedCounts:
        """Put in pairs and their prompts; one of the same prompt, texts and models is known, whichever is first.

        Raises:
            DataError: a prompt does not end with a user's message; pairs of earlier chunks are in.
        """
        made = given = 0
        for chunk in content.chunks(new):
            with self._database.writing() as connection:
                made += content.add_pairs(connection, settings.key(connection), chunk)[1]
            given += len(chunk)
        return AddedCounts(made, given - made)

    def prompts(self) -> list[StoredPrompt]:
        """Every prompt, in the order they came."""
        with self._database.reading() as connection:
            return content.all_prompts(connection)

    def pairs(self) -> list[Pair]:
        """Every pair, in the order they came."""
        with self._database.reading() as connection:
            return content.all_pairs(connection)

    def pair(self, pair: int) -> Pair:
        """One pair.

        Raises:
            DataError: there is none of that id.
        """
        with self._database.reading() as connection:
            return content.pair_of(connection, pair)

    def counts(self) -> VoteCounts:
        """How much there is."""
        with self._database.reading() as connection:
            return counting.counts(connection)

    def unpaired(self, per_prompt: int, limit: int) -> list[StoredPrompt]:
        """Prompts without gold pairs and with fewer pairs than that: those with fewest first, then in random order."""
        with self._database.reading() as connection:
            return content.unpaired(connection, per_prompt, limit)

    def fresh(self, *, now: float | None = None) -> int:
        """Pairs, gold ones left out, that nobody has voted on, skipped or holds: how far ahead the models are."""
        with self._database.reading() as connection:
            seconds = settings.current(connection).lease_seconds
            return counting.fresh(connection, leases.live(_time(now), seconds))

    # Who ranks

    def rater(self, name: str) -> Rater:
        """The rater of that name, made if new.

        Raises:
            DataError: the name is empty, too long, or holds control characters.
        """
        name = raters.normalize_name(name)
        with self._database.reading() as connection:
            found = raters.find_rater(connection, name)
        if found is not None:
            return found
        with self._database.writing() as connection:
            return raters.find_or_add_rater(connection, name)

    def raters(self) -> list[Rater]:
        """All raters, in the order they came."""
        with self._database.reading() as connection:
            return raters.all_raters(connection)

    def invite(self, name: str) -> str:
        """A new secret that lets its bearer in as that rater, who is made if new; only its sha256 is kept."""
        name = raters.normalize_name(name)
        with self._database.writing() as connection:
            return raters.new_secret(connection, raters.find_or_add_rater(connection, name), "invitation")

    def rater_of(self, token: str) -> Rater | None:
        """Whom an invitation lets in; None: nobody."""
        with self._database.reading() as connection:
            return raters.rater_of_invitation(connection, token)

    def session(self, rater: Rater, *, guest: bool = False) -> str:
        """A new secret for a rater's cookie; only its sha256 is kept. A `guest` came in by typing a name."""
        with self._database.writing() as connection:
            return raters.new_secret(connection, rater, "session", guest=guest)

    def rater_of_session(self, secret: str, *, guests: bool = True, now: float | None = None) -> Rater | None:
        """Whose session it is; None: nobody's, older than 30 days, or a guest's where there are to be no `guests`."""
        with self._database.reading() as connection:
            return raters.rater_of_session(connection, secret, guests=guests, now=_time(now))

    def end_session(self, secret: str) -> None:
        """Let a session be nobody's from now on."""
        with self._database.writing() as connection:
            raters.end_session(connection, secret)

    # Ranking

    def next(self, rater: Rater, *, now: float | None = None) -> ShownPair | None:
        """The pair a rater gets now, leased to the rater: the one that waits for an answer, else another.

        None: there is none for this rater now.
        """
        with self._database.writing() as connection:
            return choosing.choose(connection, rater, settings.current(connection), self._marks, _time(now))

    def left_of(self, prompt_id: int, rater: Rater) -> Side:
        """Which answer to a prompt is shown to a rater as A."""
        with self._database.reading() as connection:
            return left_side(settings.key(connection), prompt_id, rater.id)

    def release(self, rater: Rater, *, now: float | None = None) -> None:
        """Let others have what a rater holds."""
        with self._database.writing() as connection:
            leases.end(connection, rater, _time(now))

    def vote(self, rater: Rater, ballot: Ballot, *, left: Side | None = None) -> Vote:
        """Enter a vote; it is on the disk when this returns. The same request again gives the first vote.

        Args:
            rater: who.
            ballot: what is said of which pair.
            left: what was shown as A; by default what the lease says, or `left_of`.

        Raises:
            DataError: the ballot cannot be meant, or the rater has voted on the pair, or was never given it.
        """
        with self._database.writing() as connection:
            return votes.cast(connection, rater, ballot, left=left)

    def undo(self, rater: Rater, request: str, *, of: int | None = None, now: float | None = None) -> Vote | None:
        """Take back the rater's last standing vote, and lease its pair to the rater again.

        Args:
            rater: who.
            request: the same one again gives the same.
            of: the vote that the rater means, as `RaterProgress.last` had it; None: the last one, whichever it is.
            now: the time.

        Returns:
            The vote taken back; None: there was none.

        Raises:
            DataError: the request was a vote's, or the last standing vote is not `of`; nothing was taken back.
        """
        with self._database.writing() as connection:
            return votes.undo(connection, rater, request, settings.current(connection), _time(now), of=of)

    def progress(self, rater: Rater, *, now: float | None = None) -> RaterProgress:
        """How far a rater and the store are."""
        with self._database.reading() as connection:
            asked = settings.current(connection)
            live = leases.live(_time(now), asked.lease_seconds)
            return counting.progress(connection, rater, asked.raters_per_pair, live)

    # What was said

    def votes(self, until: int | None = None) -> list[Vote]:
        """The votes that stand as of event `until` (by default now), in order."""
        with self._database.reading() as connection:
            return votes.standing_votes(connection, until)

    def history(self, rater: Rater, limit: int = 20) -> list[Vote]:
        """A rater's standing votes, the last one first."""
        with self._database.reading() as connection:
            return votes.history(connection, rater, limit)

    def last_event(self) -> int:
        """The last event's id; 0: there is none."""
        with self._database.reading() as connection:
            return counting.last_event(connection)

    def import_votes(self, given: Iterable[ImportedVote]) -> AddedCounts:
        """Enter votes that were given elsewhere, with their pairs: all of them, or none. The same vote is known.

        Raises:
            DataError: a vote cannot be meant, or contradicts one of its rater's that is there.
        """
        made = total = 0
        with self._database.writing() as connection:
            key = settings.key(connection)
            for chunk in content.chunks(given):
                made += importing.add(connection, key, chunk)
                total += len(chunk)
        return AddedCounts(made, total - made)

    # What a reward model says

    def score(self, model: str, margins: Mapping[int, float]) -> None:
        """Keep a reward model's margins r(first) - r(second), nats, by pair id; its doubts count from now on."""
        with self._database.writing() as connection:
            scoring.score(connection, model, margins)

    def unscored(self, model: str, limit: int) -> list[Pair]:
        """Pairs that a reward model has not scored: the newest, at most `limit`."""
        with self._database.reading() as connection:
            return scoring.unscored(connection, model, limit)

    def rebuild(self) -> None:
        """Count everything anew from pairs and events."""
        with self._database.writing() as connection:
            counting.rebuild(connection, settings.key(connection))
            scoring.apply(connection)


def _time(now: float | None) -> float:
    return time.time() if now is None else now
