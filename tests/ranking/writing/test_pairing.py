"""Pairs as they are written: what they say of themselves, the same together and alone, and when they are written."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from data.votes.store_examples import with_salt
from tiny import tiny_folder, tiny_model, tiny_tokenizer
from trueup import __version__
from trueup.chat.speaker import Speaker
from trueup.config.ranking import RankConfig
from trueup.data.rendering.messages import Message
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import Answer, Ballot, NewPair, NewPrompt, Pair, StoredPrompt, StoreSettings
from trueup.errors import DataError
from trueup.ranking.writing import pairing as module
from trueup.ranking.writing.line import ServerLine
from trueup.ranking.writing.pairing import Pairing, draft_pair
from trueup.ranking.writing.scoring import Scoring
from trueup.runtime import init
from trueup.sampling import sample
from trueup.system.text import clean

ASKED = ["Hi?", "Why?", "Name a colour.", "Is it late?", "What is two and two?", "Who wrote this, and when?"]


def prompts(count: int) -> list[NewPrompt]:
    return [
        NewPrompt((Message("user", f"{ASKED[at % 6]} {at}"),), ("all",), f"prompts.jsonl:{at + 1}")
        for at in range(count)
    ]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[str]:
    where = tmp_path_factory.mktemp("models")
    return [tiny_folder(where / name, seed=seed) for seed, name in enumerate("abc")]


@pytest.fixture(scope="module")
def speakers(folders) -> list[Speaker]:
    return [Speaker(one, init("cpu")) for one in folders]


@pytest.fixture
def made(tmp_path, speakers) -> Iterator[Any]:
    """Makes a store of prompts and a `Pairing` over it; each call another store."""
    opened: list[Store] = []

    def make(count: int, models: int = 1, **settings: Any) -> Writers:
        store = with_salt(Store.open(tmp_path / f"{len(opened)}.db", create=True))
        opened.append(store)
        store.add_prompts(prompts(count))
        used = speakers[:models]
        named: dict[str, Any] = {"model": [one.name for one in used], "max_new_tokens": 12}
        config = RankConfig(**(named | settings))
        return Writers(store, used, config)

    yield make
    for one in opened:
        one.close()


class Writers:
    """A pairing, its store, and what it said."""

    def __init__(self, store: Store, speakers: list[Speaker], config: RankConfig) -> None:
        self.store, self._out = store, io.StringIO()
        self.server = ServerLine(self._out)
        self.pairing = Pairing(store, speakers, config, self.server)

    @property
    def said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._out.getvalue().splitlines()]

    def write_all(self) -> list[Pair]:
        while self.pairing.write():
            pass
        return self.store.pairs()

    def watch_all(self) -> list[Pair]:
        """Every pair is written alone, and held by a rater who waited for it."""
        for number in range(100):
            self.server._waiting.set()
            if not self.pairing.write():
                return self.store.pairs()
            self.store.next(self.store.rater(f"rater {number}"))
        raise AssertionError("it writes for ever")


def texts(pairs: list[Pair]) -> dict[str, list[tuple[str, str]]]:
    """The answers and who gave them, by prompt."""
    found: dict[str, list[Any]] = {}
    for one in pairs:
        both = [(one.first.model, one.first.text), (one.second.model, one.second.text)]
        found.setdefault(one.prompt.messages[0].content, []).append(both)
    return found


# ------------------------------------------------------------------ what is written


def test_every_prompt_has_a_pair_with_its_provenance(made, speakers):
    """Each answer is what the sampler alone gives for the seed that it names, up to its end token."""
    writers = made(7, temperature=0.8, max_new_tokens=40, batch=4)
    pairs = writers.write_all()
    assert sorted(one.prompt.origin for one in pairs) == [f"prompts.jsonl:{at}" for at in range(1, 8)]
    network, endings = speakers[0].network, set()
    for pair in pairs:
        assert pair.first.text != pair.second.text
        assert pair.prompt.tags == ("all",)
        for answer in (pair.first, pair.second):
            told = dict(answer.sampling)
            prompt = network.renderer.prompt(pair.prompt.messages)
            [got] = sample(network, [prompt], max_new_tokens=40, temperature=0.8, seed=told.pop("seed"))
            assert answer.text == network.tokenizer.decode(got.ids, skip_special_tokens=True)
            assert told.pop("ended") == ("end" if got.finished else "cut")
            assert told.pop("tokens") == len(got.ids) - got.finished
            assert told == {
                "temperature": 0.8,
                "max_new_tokens": 40,
                "device": "cpu",
                "dtype": "float32",
                "weights": network.base_fingerprint,
                "trueup": __version__,
            }
            assert answer.model == speakers[0].name
            endings.add(got.finished)
    assert endings == {True, False}
    assert len({one.sampling["seed"] for pair in pairs for one in (pair.first, pair.second)}) == 14


@pytest.mark.parametrize("models", [1, 2])
def test_the_same_pairs_together_and_alone(made, models):
    """However many run together, whoever watches, and in which order of the store: the prompts' pairs are the same."""
    together = texts(made(6, models, pairs_per_prompt=2, batch=16).write_all())
    assert {len(one) for one in together.values()} == {2}
    assert texts(made(6, models, pairs_per_prompt=2, batch=1).write_all()) == together
    watched = made(6, models, pairs_per_prompt=2)
    assert texts(watched.watch_all()) == together
    assert sum("begin" in line for line in watched.said) == 12
    assert texts(made(6, models, pairs_per_prompt=2, seed=1).write_all()) != together


def test_a_rater_who_waits_holds_a_batch_up_and_nothing_is_lost(made):
    plain = texts(made(6, 2, batch=6).write_all())
    writers = made(6, 2, batch=4)
    writers.pairing._batch_size = 4
    looks = []

    def look(checked=writers.pairing._interrupt_for_rater):
        looks.append(0)
        if len(looks) == 3:
            writers.server._waiting.set()
        checked()

    writers.pairing._interrupt_for_rater = look
    assert writers.pairing.write()
    begun = [line["begin"]["id"] for line in writers.said if "begin" in line]
    pairs = writers.store.pairs()
    assert len(begun) == 1
    assert len(pairs) == 5
    assert pairs[0].prompt.id == begun[0]  # before those of the batch
    assert texts(writers.write_all()) == plain


def test_a_batch_has_half_of_the_time_however_many_wait(made, monkeypatch):
    """Somebody always waits. A token of the batch takes a second, a watched pair 5: one comes every 5 tokens."""
    writers = made(40, batch=8, max_new_tokens=24)
    pairing, now, looks = writers.pairing, [0.0], []
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(writers.store, "fresh", lambda: 0)
    checked, alone = pairing._interrupt_for_rater, pairing._write_watched

    def look() -> None:
        looks.append(0)
        now[0] += 1
        writers.server._waiting.set()
        checked()

    def watched() -> bool:
        now[0] += 5
        return alone()

    monkeypatch.setattr(pairing, "_interrupt_for_rater", look)
    monkeypatch.setattr(pairing, "_write_watched", watched)
    pairing._write_batch(pairing._next_drafts(8))
    begun = sum("begin" in line for line in writers.said)
    assert len(looks) >= 24
    assert begun == -(-len(looks) // 5)
    assert len(writers.store.pairs()) == 8 + begun


def test_what_is_watched_is_what_is_stored(made):
    writers = made(3, 2)
    writers.server._waiting.set()
    assert writers.pairing.write()
    [pair] = writers.store.pairs()
    said = writers.said
    assert [line for line in said if "begin" in line] == [
        {"begin": {"id": pair.prompt.id, "messages": [asdict(pair.prompt.messages[0]) | {"calls": []}],
                   "tags": ["all"], "origin": pair.prompt.origin}}
    ]  # fmt: skip
    for side in ("first", "second"):
        lines = [line for line in said if line.get("side") == side]
        shown = "".join(line.get("piece", "") for line in lines)
        assert lines[-1] == {"side": side, "whole": shown}
        assert shown == clean(pair.answer(side).text)
        assert sum("piece" in line for line in lines) > 1
    assert said[-1] == {"end": True}


def test_nobody_is_shown_a_pair_while_there_is_one_to_rank(made):
    writers = made(6)
    writers.pairing.write()
    assert writers.store.fresh()
    writers.server._waiting.set()
    writers.pairing.write()
    assert not any("begin" in line for line in writers.said)
    assert not writers.server.rater_waits


# ------------------------------------------------------------------ which models


def test_all_pairings_come_in_turn(made, folders):
    pairs = made(12, 3).write_all()
    met = Counter(frozenset((one.first.model, one.second.model)) for one in pairs)
    assert len(met) == 3
    assert max(met.values()) - min(met.values()) <= 2  # at either end a block of three may be cut
    assert len({(one.first.model, one.second.model) for one in pairs}) > 3  # either is the first


def test_drafts_are_balanced_and_in_no_fixed_order():
    """Of 3 pairings each block of 3 prompts has all; sides are thrown; the three pairs of a prompt are of all three."""
    drafts = [draft_pair(StoredPrompt(at, (Message("user", str(at)),)), 0, 3, seed=5) for at in range(3000)]
    met = Counter(frozenset(one.models) for one in drafts)
    assert set(met.values()) == {1000}
    order = [tuple(sorted(one.models)) for one in drafts]
    assert len({tuple(order[at : at + 3]) for at in range(0, 3000, 3)}) == 6
    first = sum(one.models[0] < one.models[1] for one in drafts)
    assert abs(first - 1500) < 4 * 3000**0.5 / 2
    one = StoredPrompt(4, (Message("user", "a"),))
    assert len({frozenset(draft_pair(one, number, 3, seed=5).models) for number in range(3)}) == 3


def test_which_model_is_first_is_the_stores_secret():
    """The same two models write, whatever the secret; which of them is the first cannot be told without it."""
    asked = [StoredPrompt(at, (Message("user", str(at)),)) for at in range(1000)]
    one, other = ([draft_pair(prompt, 0, 3, 5, salt).models for prompt in asked] for salt in ("a", "b"))
    assert [set(models) for models in one] == [set(models) for models in other]
    same = sum(left == right for left, right in zip(one, other, strict=True))
    assert abs(same - 500) < 4 * 1000**0.5 / 2


# ------------------------------------------------------------------ what is left out


def test_prompts_that_are_too_long_are_said_and_left_out(tmp_path, made):
    writers = made(5)
    small = Speaker(tiny_folder(tmp_path / "small", max_position_embeddings=64), init("cpu"))
    writers.store.add_prompts([NewPrompt((Message("user", "x" * 60),), (), "prompts.jsonl:99")])
    pairing = Pairing(writers.store, [small], RankConfig(model=[small.name], max_new_tokens=4), writers.server)
    while pairing.write():
        pass
    assert pairing.idle_state == "done"
    assert len(writers.store.pairs()) == 5
    left = [line for line in writers.said if "left_out" in line]
    assert [(one["why"], one["origin"]) for one in left] == [
        (f"left out, too long for {small.name}", "prompts.jsonl:99")
    ]


def test_answers_that_are_always_the_same_are_drawn_again_and_then_left_out(made, monkeypatch):
    """At a temperature of next to nothing both are the likeliest answer."""
    writers = made(3, temperature=1e-9)
    draws = []
    answers = Speaker.answers
    monkeypatch.setattr(
        Speaker, "answers", lambda self, asked, *a, **k: draws.append(len(asked)) or answers(self, asked, *a, **k)
    )
    assert writers.write_all() == []
    left = Counter(line["why"] for line in writers.said if "left_out" in line)
    assert left == {"left out, as both answers were the same": 3}
    assert draws == [4, 4, 4, 4, 2, 2, 2, 2]
    watched = made(1, temperature=1e-9)
    assert watched.watch_all() == []
    assert watched.said[-1] == {"end": False}
    assert sum("begin" in line for line in watched.said) == 4


def test_a_pair_that_is_there_already_does_not_go_on_for_ever(made):
    """A store made by an earlier run that counted otherwise: the same answers come, and are known."""
    earlier = made(2, 2, temperature=0)
    [one, _] = earlier.write_all()
    later = made(2, 2, temperature=0)
    prompt = NewPrompt(one.prompt.messages)
    later.store.add_pairs([NewPair(prompt, one.first, one.second)])
    later.pairing._config = later.pairing._config.model_copy(update={"pairs_per_prompt": 2})
    assert len(later.write_all()) == 2
    why = Counter(line["why"] for line in later.said if "left_out" in line)
    assert why == {"left out, as the answers were those of an earlier pair": 2}


def test_a_store_that_cannot_be_written_stops_the_models(made, monkeypatch):
    """A full disk is no fault of the prompts: none is left out, and the writing ends with what the store said."""
    writers = made(3)

    def full(_):
        raise DataError("votes.db: the disk is full")

    monkeypatch.setattr(writers.store, "add_pairs", full)
    with pytest.raises(DataError, match="disk is full"):
        writers.write_all()
    assert not any("left_out" in line for line in writers.said)


# ------------------------------------------------------------------ how far ahead


def test_it_rests_when_it_is_ahead_and_goes_on_when_votes_use_pairs_up(made):
    writers = made(12, ahead=4, batch=2)
    while writers.pairing.write():
        pass
    store, rater = writers.store, writers.store.rater("r")
    assert (store.fresh(), writers.pairing.idle_state) == (4, "ahead")
    for number in range(2):
        assert not writers.pairing.write()  # one less than wanted is not worth a batch of its own
        shown = store.next(rater)
        store.vote(rater, Ballot(str(number), shown.pair.id, "first"))
    assert writers.pairing.write()
    assert store.fresh() == 4
    store.add_prompts(prompts(20))
    while writers.pairing.write():
        pass
    assert len(store.pairs()) == 6


def test_prompts_that_come_later_are_written_too(made):
    writers = made(2)
    assert len(writers.write_all()) == 2
    assert writers.pairing.idle_state == "done"
    writers.store.add_prompts(prompts(3))
    assert len(writers.write_all()) == 3


# ------------------------------------------------------------------ scores


@pytest.fixture(scope="module")
def reward(tmp_path_factory) -> str:
    """A run's folder with a reward model in it."""
    from transformers import LlamaForSequenceClassification

    run = tmp_path_factory.mktemp("reward") / "rm"
    config = tiny_model(seed=4).config
    config.num_labels = 1
    config.max_position_embeddings = 120
    torch.manual_seed(4)
    LlamaForSequenceClassification(config).save_pretrained(run / "model")
    tiny_tokenizer().save_pretrained(run / "model")
    return str(run)


def test_pairs_are_scored_by_their_margin(made, reward):
    """r(first) - r(second), each the classifier's own logit at the end token of the rendered conversation."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    writers = made(3)
    long = NewPair(prompts(4)[3], Answer("a" * 100), Answer("b"))
    writers.store.add_pairs([long])
    writers.write_all()
    scoring = Scoring(reward, writers.store, init("cpu"), writers.server, max_tokens=16_384)
    given: dict[int, float] = {}
    score = writers.store.score
    writers.store.score = lambda model, margins: (given.update(margins), score(model, margins))
    assert scoring.name == reward
    assert scoring.score() == 4
    assert scoring.score() == 0
    model = AutoModelForSequenceClassification.from_pretrained(Path(reward) / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(Path(reward) / "model")

    def r(pair: Pair, text: str) -> float:
        messages = [
            {"role": "user", "content": pair.prompt.messages[0].content},
            {"role": "assistant", "content": text},
        ]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False).removesuffix("\n")
        with torch.no_grad():
            return model(**tokenizer(rendered, return_tensors="pt", add_special_tokens=False)).logits.item()

    scored = {one.id: one for one in writers.store.pairs() if one.first.text != "a" * 100}
    assert given.keys() == scored.keys()
    for number, pair in scored.items():
        assert given[number] == pytest.approx(r(pair, pair.first.text) - r(pair, pair.second.text), abs=1e-5)
    [left] = [line for line in writers.said if line.get("what") == "pair"]
    assert (left["why"], left["origin"]) == (f"not scored, too long for {reward}", "prompts.jsonl:4")


def test_the_most_uncertain_pair_comes_first(made, reward):
    writers = made(5)
    pairs = writers.write_all()
    writers.store.configure(StoreSettings(policy="uncertain", gold_every=0))
    scoring = Scoring(reward, writers.store, init("cpu"), writers.server, max_tokens=16_384)
    while scoring.score():
        pass
    shown = writers.store.next(writers.store.rater("r"))
    assert shown.policy == "uncertain"
    assert shown.score is not None
    assert shown.pair.id in {one.id for one in pairs}
