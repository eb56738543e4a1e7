"""Prompts and pairs are there once each, as they were given; prompts wait for pairs in the store's order."""

from __future__ import annotations

import pytest

from data.votes.store_examples import check_store, make_store, new_pair, new_prompt, vote_on
from trueup.data.rendering.messages import Message
from trueup.data.votes.store import Store
from trueup.data.votes.vote_types import AddedCounts, Answer, NewPair, NewPrompt, VoteCounts
from trueup.errors import DataError


def test_pairs_come_back_as_they_were_given(tmp_path):
    messages = (Message("system", "s\0\n"), Message("user", "ü 😀"), Message("assistant", ""), Message("user", "?"))
    asked = NewPrompt(messages, ("code", "maths"), "prompts.jsonl:3")
    first = Answer("<script>", "runs/a", {"temperature": 0.7, "seed": [1, 2], "more": None})
    with make_store(tmp_path, 0) as opened:
        assert opened.add_pairs([NewPair(asked, first, Answer(""), "second")]) == AddedCounts(1, 0)
    with Store.open(tmp_path / "votes.db") as again:
        (one,) = again.pairs()
        assert again.pair(1) == one
        assert (one.first, one.second, one.gold, one.id) == (first, Answer(""), "second", 1)
        assert (one.prompt.messages, one.prompt.tags, one.prompt.origin) == (messages, asked.tags, asked.origin)
        assert again.prompts() == [one.prompt]
        assert again.counts() == VoteCounts(prompts=1, pairs=0, gold=1, raters=0, votes=0, events=1)


def test_the_same_content_is_known(tmp_path):
    with make_store(tmp_path, 3) as opened:
        assert opened.add_prompts([new_prompt(1, tags=("new",)), new_prompt(9), new_prompt(9)]) == AddedCounts(1, 2)
        assert opened.add_pairs(new_pair(number) for number in (0, 2, 5, 5)) == AddedCounts(1, 3)
        one = new_pair(1)
        turned = NewPair(one.prompt, one.second, one.first)
        other_model = NewPair(one.prompt, Answer(one.first.text, "three"), one.second)
        other_text = NewPair(one.prompt, Answer("maybe", "one"), one.second)
        swapped_models = NewPair(one.prompt, Answer(one.first.text, "two"), Answer(one.second.text, "one"))
        assert opened.add_pairs([turned, other_model, other_text, swapped_models]) == AddedCounts(3, 1)
        assert len(opened.pairs()) == 7
        assert opened.prompts()[1].tags == ()  # what is there stays as it is
        check_store(opened)


def test_more_than_one_chunk_goes_in(tmp_path):
    with make_store(tmp_path, 0) as opened:
        assert opened.add_pairs(new_pair(number % 1100) for number in range(1300)) == AddedCounts(1100, 200)
        assert [one.first.text for one in opened.pairs()] == [f"yes {number}" for number in range(1100)]
        assert opened.counts().prompts == 1100
        check_store(opened)


def test_prompts_that_cannot_be_answered_are_refused(tmp_path):
    with make_store(tmp_path, 0) as opened:
        for messages in ((), (Message("user", "a"), Message("assistant", "b"))):
            with pytest.raises(DataError, match=r"p\.jsonl:4: a prompt must end with a user's message"):
                opened.add_prompts([new_prompt(1), NewPrompt(messages, origin="p.jsonl:4")])
        with pytest.raises(DataError, match="half a surrogate pair"):
            opened.add_prompts([NewPrompt((Message("user", "\ud800"),))])
        with pytest.raises(DataError, match="half a surrogate pair"):
            opened.add_pairs([NewPair(new_prompt(1), Answer("\ud800"), Answer("b"))])
        assert opened.prompts() == opened.pairs() == []


def test_prompts_wait_for_pairs_those_with_fewest_first(tmp_path):
    with make_store(tmp_path, 0) as opened:
        opened.add_prompts(new_prompt(number) for number in range(30))
        waiting = opened.unpaired(1, 100)
        assert sorted(one.id for one in waiting) == [*range(1, 31)]
        assert [one.id for one in waiting] != sorted(one.id for one in waiting)
        assert opened.unpaired(1, 3) == waiting[:3]
        done = waiting[:10]
        opened.add_pairs(NewPair(NewPrompt(one.messages), Answer("a"), Answer("b")) for one in done)
        opened.add_pairs(NewPair(NewPrompt(waiting[at].messages), Answer("c"), Answer("d"), "first") for at in (0, 10))
        assert opened.unpaired(1, 100) == waiting[11:]  # none by which raters are checked, answered or not
        assert opened.unpaired(2, 100) == waiting[11:] + done[1:]
        check_store(opened)


def test_what_is_ahead_is_what_nobody_has_seen(tmp_path):
    with make_store(tmp_path, 5, gold=3, raters_per_pair=2) as opened:
        assert opened.fresh() == 5
        ann = opened.rater("A")
        vote_on(opened, ann, 1), vote_on(opened, ann, 2, "skip")
        assert opened.fresh() == 3
        opened.next(ann), opened.next(opened.rater("B"))
        assert opened.fresh() == 2  # Ann looks at one, Bob is at what Ann began
        opened.undo(ann, "u")
        opened.release(ann)
        assert opened.fresh() == 4
        assert opened.counts() == VoteCounts(prompts=8, pairs=5, gold=3, raters=2, votes=1, events=4)


def test_rebuilding_mends_what_was_counted_wrong(tmp_path):
    with make_store(tmp_path, 5) as opened:
        vote_on(opened, opened.rater("A"), 1)
        with opened._database.writing() as connection:
            for deed in ("DELETE FROM standing", "UPDATE tallies SET votes = 7, position = 1", "DELETE FROM levels"):
                connection.exec_driver_sql(deed)
        opened.score("m", {2: 0.0})
        opened.rebuild()
        told = opened.progress(opened.rater("A"))
        assert (told.mine, told.pairs, told.complete, told.left) == (1, 5, 1, 4)
        check_store(opened)


def test_half_a_surrogate_pair_in_tags_and_origin_does_not_cost_the_prompt(tmp_path):
    with make_store(tmp_path, 0) as opened:
        assert opened.add_prompts([new_prompt(1, tags=("a\ud83d", "😀"), origin="\udcff.jsonl:1")]) == AddedCounts(1, 0)
        (one,) = opened.prompts()
        assert (one.tags, one.origin) == (("a�", "😀"), "�.jsonl:1")


@pytest.mark.parametrize(
    ("message", "what"),
    [(Message("tools", "[]"), "tools or tool calls"), (Message("assistant", "Hm.", thinking="So."), "thoughts")],
)
def test_a_prompt_that_raters_cannot_read_is_refused_with_its_place(tmp_path, message, what):
    asked = NewPrompt((message, Message("user", "Look.")), origin="p.jsonl:4")
    with make_store(tmp_path, 0) as opened, pytest.raises(DataError, match=rf"p\.jsonl:4: a prompt holds {what}, and"):
        opened.add_prompts([asked])
