"""Answers sampled together: the same as one by one, cut at the same places, and other work may come in between."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from thorough import THOROUGH
from tiny import tiny_folder
from trueup.chat.speaker import AnswerSampling, Speaker
from trueup.data.rendering.messages import Message
from trueup.runtime import init

SAMPLING = AnswerSampling(temperature=1.0, max_new_tokens=24)
ASKED = ["Hi?", "What is two and two?", "Hi?", "Name a colour, and say why you like it more than others."]


@pytest.fixture(scope="module")
def speaker(tmp_path_factory) -> Speaker:
    torch.set_num_threads(1)
    return Speaker(tiny_folder(tmp_path_factory.mktemp("speaker") / "a", max_position_embeddings=96), init("cpu"))


def fields(answer):
    return answer.text, answer.tokens, answer.ended


def test_answers_together_are_the_answers_alone(speaker):
    """The last prompt leaves room for fewer tokens than asked; "e" stops some answers in the middle."""
    sampling = replace(SAMPLING, stops=("e", "Q"))
    prompts = [speaker.prompt([Message("user", one)]) for one in ASKED]
    assert [speaker.room(one, sampling) < 24 for one in prompts] == [False, False, False, True]
    endings = set()
    for seed in range(12 if THOROUGH else 4):
        seeds = [seed + 100 * index for index in range(4)]
        alone = [speaker.answer(one, sampling, seed=own) for one, own in zip(prompts, seeds, strict=True)]
        for max_tokens in (1, 200, 16_384):
            together = speaker.answers(prompts, sampling, seeds=seeds, max_tokens=max_tokens)
            assert list(map(fields, together)) == list(map(fields, alone))
        endings |= {one.ended for one in alone}
        assert all("e" not in one.text for one in alone)
    assert endings >= {"stop", "cut"}


def test_an_end_token_spelled_out_ends_the_answer_there(speaker, monkeypatch):
    """`<|im_end|>` in ordinary tokens is cut as `trueup chat` cuts it, and the tokens behind it are not counted."""
    from trueup.chat import speaker as module
    from trueup.sampling import Sample

    ids = speaker.network.tokenizer("Yes.<|im_", add_special_tokens=False)["input_ids"]
    ids += [speaker.network.tokenizer.convert_tokens_to_ids(one) for one in "end|>more"]
    monkeypatch.setattr(module, "sample", lambda *_, **__: [Sample(ids, finished=False)])
    [got] = speaker.answers([[1, 2]], SAMPLING, seeds=[0])
    assert fields(got) == ("Yes.", len("Yes.<|im_end|>"), "stop")


def test_one_answer_may_be_given_in_the_middle_of_others(speaker):
    prompts = [speaker.prompt([Message("user", one)]) for one in ASKED[:3]]
    plain = list(map(fields, speaker.answers(prompts, SAMPLING, seeds=[1, 2, 3])))
    alone = fields(speaker.answer(prompts[1], SAMPLING, seed=9))
    between, calls = [], []

    def check() -> None:
        calls.append(0)
        if len(calls) == 5:
            between.append(fields(speaker.answer(prompts[1], SAMPLING, seed=9)))

    assert list(map(fields, speaker.answers(prompts, SAMPLING, seeds=[1, 2, 3], check=check))) == plain
    assert between == [alone]
    assert len(calls) > 20  # the hook came back after the answer in between
