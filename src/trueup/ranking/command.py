"""Implementation of `trueup rank` and its subcommands for export, import and results.

To serve the ranking page, input files are read first, then the page is served, and only then are models loaded.
"""

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
from trueup.ranking import results as vote_results
from trueup.ranking.page import Access
from trueup.ranking.page import serve as serve_page
from trueup.ranking.page.access import on_loopback
from trueup.ranking.writing.ahead import AnswerWriter
from trueup.system.files import atomic_write_text, split_event
from trueup.system.text import clean, masked

if TYPE_CHECKING:
    from trueup.data.votes.vote_types import Rater

OWNER = "owner"
"""The rater who may see the results when every visitor needs a link."""


@dataclass(frozen=True, slots=True)
class StoreInput:
    """New prompts and pairs of answers, read from the files that a `trueup rank` configuration names."""

    prompts: Sequence[NewPrompt] = ()
    pairs: Sequence[NewPair] = ()

    @classmethod
    def read(cls, prompts: Path | None, pairs: Path | None, gold: Path | None) -> StoreInput:
        """Read the files of prompts, of pairs, and of gold pairs, which check raters by a known better answer.

        Gold pairs are mixed in at random places; a pair that is in both files of pairs is kept only as a gold pair.

        Raises:
            DataError: a row cannot be used.
        """
        checks = exchange.read_pairs(str(gold), gold=True) if gold else []
        known = {_content(pair) for pair in checks}
        ready = [pair for pair in exchange.read_pairs(str(pairs)) if _content(pair) not in known] if pairs else []
        if note := exchange.empty_message_note(exchange.count_empty_messages(ready)):
            say(note)
        for pair in checks:  # at random places: a pair's number must not tell that its better answer is known
            ready.insert(secrets.randbelow(len(ready) + 1), pair)
        return cls(exchange.read_prompts(str(prompts)) if prompts else [], ready)


def serve(path: Path, config: RankConfig) -> None:
    """Serve the ranking page until Ctrl-C.

    A setting that is None in `config` keeps the value that the store has for it.

    Args:
        path: the store (an SQLite file of prompts, pairs and votes); made if there is none and there is something to
            put into it.
        config: what is ranked, by whom, and where the page is served.

    Raises:
        ConfigError: settings contradict each other, or the port is taken.
        DataError: a file or the store cannot be used.
    """
    if not path.exists() and not (config.pairs or (config.prompts and config.model)):
        raise ConfigError(
            f"{path}: there is no such store yet, and nothing to put into a new one\n"
            "  fix: --prompts FILE --model RUN to have answers written, or --pairs FILE of answers that exist"
        )
    _check_reward(config.reward)
    closed = bool(config.rater or config.name) or not on_loopback(config.host)
    access = Access(config.host, config.port, token_needed=closed, owner=OWNER, names=tuple(config.name))
    files = StoreInput.read(config.prompts, config.pairs, config.gold)
    is_new = not path.exists()
    with Store.open(path, create=True) as store:
        with store.discarded_on_error(is_new=is_new):
            _fill(store, _settings(store, config), files, writes=bool(config.model))
        invited = [store.rater(name) for name in ([OWNER, *config.rater] if access.token_needed else [])]
        before = store.last_event()
        writer = None
        if config.model or config.reward:
            writer = AnswerWriter(path, config.model_copy(update={"seed": store.settings.seed}), report=say)
        serve_page(store, writer, access, say=say, ready=lambda bound: _welcome(store, bound, invited, config))
        votes = store.votes()
        new = sum(vote.id > before for vote in votes)
        for note in writer.notes if writer else ():
            say(note)
        say(f"{_count(len(votes), 'vote')} in {path}, {new} of them new; the same command goes on")
    if writer is not None and writer.problem:
        raise ModelError(writer.problem)


def _settings(store: Store, config: RankConfig) -> StoreSettings:
    """Return the store's settings (such as votes a pair), with those that `config` gives put in their place."""
    wanted = {
        "raters_per_pair": config.raters_per_pair, "gold_every": config.gold_every, "policy": config.next,
        "lease_seconds": config.lease, "seed": config.seed,
    }  # fmt: skip
    return replace(store.settings, **{key: value for key, value in wanted.items() if value is not None})


def _fill(store: Store, settings: StoreSettings, files: StoreInput, *, writes: bool) -> None:
    """Put settings, prompts and pairs into the store. Raises ConfigError if there is still nothing to rank."""
    _refuse_ordinary(store, files)
    store.configure(settings)
    for noun, added in (("prompt", store.add_prompts(files.prompts)), ("pair", store.add_pairs(files.pairs))):
        if added.known:
            say(f"{_count(added.new, f'new {noun}')}, {_count(added.known, noun)} there before")
    counts = store.counts()
    if not (counts.pairs or counts.gold or writes):
        raise ConfigError(f"{store.path}: holds no pairs, and no model writes any\n  fix: --model RUN, or --pairs FILE")
    if writes and not counts.prompts:
        raise ConfigError(f"{store.path}: holds no prompts for the model to answer\n  fix: --prompts FILE")


def _check_reward(reward: str | None) -> None:
    """Raise ModelError if the folder `reward` holds another kind of model than a reward model.

    Only its config.json is read: the process that scores pairs would notice the mistake only after torch has loaded.
    """
    settings = Path(reward or "", "config.json")
    if reward and settings.is_file():
        kinds = json.loads(settings.read_text(encoding="utf-8")).get("architectures") or []
        if not any("SequenceClassification" in str(kind) for kind in kinds):
            raise ModelError(
                f"{reward}: holds {', '.join(map(str, kinds)) or 'no known model'}, not a reward model\n"
                "  fix: name the run of a reward stage"
            )


def _content(pair: NewPair | Pair) -> tuple[tuple[Message, ...], frozenset[str]]:
    """Return the prompt's messages and the set of both answers' texts; if equal, two pairs look the same to a rater."""
    return pair.prompt.messages, frozenset((pair.first.text, pair.second.text))


def _refuse_ordinary(store: Store, files: StoreInput) -> None:
    """Raise DataError if a gold pair is already in the store as an ordinary pair, without its known better answer.

    The store would keep the ordinary pair, which checks no rater.
    """
    checks = {_content(pair) for pair in files.pairs if pair.gold is not None}
    if not checks:
        return
    ordinary = [pair.id for pair in store.pairs() if pair.gold is None and _content(pair) in checks]
    if ordinary:
        raise DataError(
            f"{store.path}: {_count(len(ordinary), 'pair')} of --gold are ordinary ones in it, first {ordinary[0]}\n"
            "  fix: leave them out of --gold, or begin another store with them"
        )


def _welcome(store: Store, access: Access, invited: Sequence[Rater], config: RankConfig) -> None:
    """Print the number of prompts, pairs and votes, and the addresses at which raters and owner open the page."""
    settings, counts = store.settings, store.counts()
    say(
        f"{store.path}: {_count(counts.prompts, 'prompt')}, {_count(counts.pairs, 'pair')}"
        + (f" and {counts.gold} to check raters by" if counts.gold else "")
        + f", {_count(counts.votes, 'vote')}; "
        + f"{_count(settings.raters_per_pair, 'vote')} a pair, next: {settings.policy}"
    )
    if settings.policy == "uncertain" and config.reward is None:
        say("there is no --reward: pairs without a score come in random order")
    if config.model or config.reward:
        say("loading models in the background; the page works meanwhile")
    if not access.token_needed:
        say(f"rank at     {access.address}")
        say(f"results at  {access.address}results")
    for rater in invited:
        also = " (sees the results)" if rater.name == OWNER else ""
        say(f"{rater.name}{also}: {access.link(store.invite(rater.name))}")
    say("Ctrl-C stops it; every vote is on disk before the page says saved")


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
    """Write a store's votes to a JSONL file of rankings or verdicts, and print how many became rows.

    The arguments are those of `trueup.ranking.exchange.export`.

    Raises:
        DataError: the store cannot be read, or a file exists already and may not be replaced.
    """
    done = exchange.export(path, output, votes=votes, form=form, edits=edits, margin=margin, gold=gold, force=force)
    print(done)


def import_(path: Path, file: Path, *, rater: str | None = None) -> None:
    """Import the rankings in a file into the store as votes, and print how many there were.

    Raises:
        DataError: a row cannot be used, or contradicts a vote in the store; nothing is imported then.
    """
    print(exchange.import_file(path, str(file), rater=rater))


def results(path: Path, *, html: Path | None = None, as_json: bool = False) -> None:
    """Print the results of a store's votes (win rates, agreement and more) as text or JSON; `html` also gets a page.

    A path such as `votes.db@1200` counts only the votes up to the store's event 1200.

    Raises:
        ConfigError: `html` is not the name of an HTML file.
        DataError: the path is not a store.
    """
    if html is not None and (html.suffix.lower() not in (".html", ".htm") or html.is_dir()):
        raise ConfigError(f"--html {html}: is not the name of a page\n  fix: end it in .html")
    name, event = split_event(str(path))
    with Store.open(Path(name), read_only=True) as store:
        settings, last_event = store.settings, resolve_event(store, event)
        view = vote_results.view(
            store.pairs(), store.votes(last_event), settings=settings, seed=settings.seed, event=last_event
        )
    if html is not None:
        atomic_write_text(html, vote_results.page(view))
    print(view.model_dump_json(indent=2) if as_json else vote_results.terminal(view))


def say(text: str) -> None:
    """Print a line to stderr for the person at the terminal, with secrets masked and control characters written out."""
    print(clean(masked(text)), file=sys.stderr, flush=True)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
