"""What `trueup rank` and its commands do. Every file is read before the page is there, and the page before a model."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trueup.config.ranking import RankConfig
from trueup.data.rendering.messages import Message
from trueup.data.votes.rows import resolve_event
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import NewPair, NewPrompt, Pair, StoreSettings
from trueup.errors import ConfigError, DataError, ModelError
from trueup.ranking import exchange
from trueup.ranking import results as said
from trueup.ranking.page import Access
from trueup.ranking.page import serve as serve_page
from trueup.ranking.page.access import on_loopback
from trueup.ranking.writing.ahead import Ahead
from trueup.system.files import atomic_write_text, split_event
from trueup.system.text import clean, masked

if TYPE_CHECKING:
    from trueup.data.votes.vote_types import Rater

OWNER = "owner"
"""The rater who may see the results where everybody needs a link."""


@dataclass(frozen=True, slots=True)
class Input:
    """What a command line puts into a store."""

    prompts: Sequence[NewPrompt] = ()
    pairs: Sequence[NewPair] = ()

    @classmethod
    def read(cls, prompts: Path | None, pairs: Path | None, gold: Path | None) -> Input:
        """Read the files. Raises DataError for a row that cannot be used."""
        checks = exchange.read_pairs(str(gold), gold=True) if gold else []
        known = {_words(one) for one in checks}
        ready = [one for one in exchange.read_pairs(str(pairs)) if _words(one) not in known] if pairs else []
        if told := exchange.told_of_empty(exchange.empty_messages(ready)):
            say(told)
        for one in checks:  # anywhere among them: a pair's number is not to tell that its answer is known
            ready.insert(secrets.randbelow(len(ready) + 1), one)
        return cls(exchange.read_prompts(str(prompts)) if prompts else [], ready)


def serve(path: Path, config: RankConfig) -> None:
    """Serve the page until Ctrl-C. A setting that is None stays as the store has it.

    Args:
        path: the store; it is made where there is none and there is something to put into it.
        config: what is ranked, by whom, and where the page is served.

    Raises:
        ConfigError: the settings cannot be meant together, or the port is taken.
        DataError: a file or the store cannot be used.
    """
    if not path.exists() and not (config.pairs or (config.prompts and config.model)):
        raise ConfigError(
            f"{path}: there is no such store yet, and no pairs to put into one\n"
            "  fix: --prompts FILE --model RUN to have answers written, or --pairs FILE of answers that are there"
        )
    _check_reward(config.reward)
    closed = bool(config.rater or config.name) or not on_loopback(config.host)
    access = Access(config.host, config.port, token_needed=closed, owner=OWNER, names=tuple(config.name))
    given = Input.read(config.prompts, config.pairs, config.gold)
    with Store.open(path, create=True) as store:
        _fill(store, _settings(store, config), given, writes=bool(config.model))
        invited = [store.rater(name) for name in ([OWNER, *config.rater] if access.token_needed else [])]
        before = store.last_event()
        writer = None
        if config.model or config.reward:
            writer = Ahead(path, config.model_copy(update={"seed": store.settings.seed}), report=say)
        serve_page(store, writer, access, say=say, ready=lambda bound: _welcome(store, bound, invited, config))
        votes = store.votes()
        new = sum(vote.id > before for vote in votes)
        for note in writer.notes if writer else ():
            say(note)
        say(f"{_count(len(votes), 'vote')} in {path}, {new} of them new; the same command goes on")
    if writer is not None and writer.problem:
        raise ModelError(writer.problem)


def _settings(store: Store, config: RankConfig) -> StoreSettings:
    """Return the store's settings, changed to those that the configuration gives."""
    wanted = {
        "raters_per_pair": config.raters_per_pair, "gold_every": config.gold_every, "policy": config.next,
        "lease_seconds": config.lease, "seed": config.seed,
    }  # fmt: skip
    return replace(store.settings, **{key: value for key, value in wanted.items() if value is not None})


def _fill(store: Store, settings: StoreSettings, given: Input, *, writes: bool) -> None:
    """Put what was given into the store. Raises ConfigError where nothing could ever be ranked by it."""
    _refuse_ordinary(store, given)
    store.configure(settings)
    for what, added in (("prompt", store.add_prompts(given.prompts)), ("pair", store.add_pairs(given.pairs))):
        if added.known:
            say(f"{_count(added.new, f'new {what}')}, {_count(added.known, what)} there before")
    held = store.counts()
    if not (held.pairs or held.gold or writes):
        raise ConfigError(f"{store.path}: holds no pairs, and no model writes any\n  fix: --model RUN, or --pairs FILE")
    if writes and not held.prompts:
        raise ConfigError(f"{store.path}: holds no prompts for the model to answer\n  fix: --prompts FILE")


def _check_reward(reward: str | None) -> None:
    """Raise ModelError for another model than a reward model: its process would notice only after torch has loaded."""
    settings = Path(reward or "", "config.json")
    if reward and settings.is_file():
        kinds = json.loads(settings.read_text(encoding="utf-8")).get("architectures") or []
        if not any("SequenceClassification" in str(kind) for kind in kinds):
            raise ModelError(
                f"{reward}: holds {', '.join(map(str, kinds)) or 'no known model'}, not a reward model\n"
                "  fix: name the run of a reward stage"
            )


def _words(pair: NewPair | Pair) -> tuple[tuple[Message, ...], frozenset[str]]:
    """By what two pairs are the same to a rater."""
    return pair.prompt.messages, frozenset((pair.first.text, pair.second.text))


def _refuse_ordinary(store: Store, given: Input) -> None:
    """Raise DataError for a gold pair that is in the store as an ordinary one: it would check nobody."""
    checks = {_words(one) for one in given.pairs if one.gold is not None}
    if not checks:
        return
    there = [pair.id for pair in store.pairs() if pair.gold is None and _words(pair) in checks]
    if there:
        raise DataError(
            f"{store.path}: {_count(len(there), 'gold pair')} here are ordinary ones in it, first pair {there[0]}\n"
            "  fix: leave them out of --gold, or begin another store with them"
        )


def _welcome(store: Store, access: Access, invited: Sequence[Rater], config: RankConfig) -> None:
    """What is ranked, and where."""
    settings, held = store.settings, store.counts()
    say(
        f"{store.path}: {_count(held.prompts, 'prompt')}, {_count(held.pairs, 'pair')}"
        + (f" and {held.gold} to check raters by" if held.gold else "")
        + f", {_count(held.votes, 'vote')}; "
        + f"{_count(settings.raters_per_pair, 'vote')} a pair, next: {settings.policy}"
    )
    if settings.policy == "uncertain" and config.reward is None:
        say("no --reward is named: pairs that none has scored come in random order")
    if config.model or config.reward:
        say("loading models in the background; the page is there meanwhile")
    if not access.token_needed:
        say(f"rank at     {access.address}")
        say(f"results at  {access.address}results")
    for rater in invited:
        also = " (sees the results)" if rater.name == OWNER else ""
        say(f"{rater.name}{also}: {access.link(store.invite(rater.name))}")
    say("Ctrl-C stops it; every vote is on the disk before the page says so")


def export(
    path: Path,
    output: Path,
    *,
    votes: Literal["majority", "every"] = "majority",
    form: Literal["rankings", "verdicts"] = "rankings",
    edits: Path | None = None,
    margin: bool = False,
    gold: bool = False,
    force: bool = False,
) -> None:
    """Write votes as rows of data, and say what became of each vote.

    Raises:
        DataError: the store cannot be read, or a file is there already.
    """
    done = exchange.export(path, output, votes=votes, form=form, edits=edits, margin=margin, gold=gold, force=force)
    print(done)


def import_(path: Path, file: Path, *, rater: str | None = None) -> None:
    """Take a file's rankings into the store. Raises DataError for a row that cannot be used; then none is taken."""
    print(exchange.import_file(path, str(file), rater=rater))


def results(path: Path, *, html: Path | None = None, as_json: bool = False) -> None:
    """Print what the votes say, of `votes.db@1200` as it stood at that event. Raises DataError for what is no store."""
    if html is not None and (html.suffix.lower() not in (".html", ".htm") or html.is_dir()):
        raise ConfigError(f"--html {html}: is no name of a page\n  fix: end it in .html")
    name, event = split_event(str(path))
    with Store.open(Path(name), read_only=True) as store:
        settings, at = store.settings, resolve_event(store, event)
        found = said.view(store.pairs(), store.votes(at), settings=settings, seed=settings.seed, event=at)
    if html is not None:
        atomic_write_text(html, said.page(found))
    print(found.model_dump_json(indent=2) if as_json else said.terminal(found))


def say(text: str) -> None:
    """One line to the person at the terminal."""
    print(clean(masked(text)), file=sys.stderr, flush=True)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
