"""Rewards from a user's Python file: found, loaded, and their answers checked."""

from __future__ import annotations

import pytest
import torch

from trueup.data.rendering.messages import Conversation, Message
from trueup.errors import ConfigError, TrainingError
from trueup.models.rewards import Ensemble, checked_reward, disagreement, reward_from_file

TALKS = [Conversation((Message("user", "Hi"), Message("assistant", answer))) for answer in ("Hello!", "Yo", "")]


def write(path, body: str) -> str:
    file = path / "mine.py"
    file.write_text(body)
    return str(file)


def test_a_function_of_a_file(tmp_path):
    file = write(tmp_path, "def shorter(talks):\n    return [-len(one.response) for one in talks]\n")
    scores = reward_from_file(f"{file}:shorter")(TALKS)
    assert scores.tolist() == [-6.0, -2.0, 0.0]
    assert scores.dtype == torch.float32


def test_a_file_with_dataclasses_of_its_own(tmp_path):
    body = (
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Rule:\n    word: str\n    worth: float = 2.0\n"
        "RULE = Rule('Hello')\n"
        "def rule(talks):\n    return [RULE.worth * (RULE.word in one.response) for one in talks]\n"
    )
    assert reward_from_file(f"{write(tmp_path, body)}:rule")(TALKS).tolist() == [2.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "answer",
    [torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64), (1, 2, 3), [torch.tensor(1), torch.tensor(2), 3.0]],
    ids=["column", "tuple", "list of tensors"],
)
def test_answers_of_other_shapes(answer):
    scores = checked_reward(lambda _: answer, "mine")(TALKS)
    assert scores.tolist() == [1.0, 2.0, 3.0]
    assert scores.dtype == torch.float32


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ([1.0, 2.0], "mine gave 2 scores for 3 conversations"),
        (1.0, "1 scores for 3 conversations"),
        ([1.0, float("nan"), 2.0], 'score nan for the answer "Yo"; scores must be finite'),
        ([1.0, 2.0, float("-inf")], 'score -inf for the answer ""'),
        (["good", "bad", "bad"], "which is not a list of numbers"),
        (None, "returned None, which is not"),
        ([1.0, None, 2.0], "which is not a list of numbers"),
    ],
)
def test_wrong_answers_are_named(answer, complaint):
    with pytest.raises(TrainingError, match=complaint):
        checked_reward(lambda _: answer, "mine")(TALKS)


def test_the_functions_own_error_is_its_own():
    def broken(_):
        raise KeyError("answer")

    with pytest.raises(KeyError, match="answer"):
        checked_reward(broken, "mine")(TALKS)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"no file .*gone\.py'; give reward=FILE\.py:FUNCTION"):
        reward_from_file(f"{tmp_path / 'gone.py'}:score")
    with pytest.raises(ConfigError, match=r"no file 'mine\.py'"):
        reward_from_file("mine.py")


def test_a_file_that_is_not_python(tmp_path):
    (tmp_path / "reward.txt").write_text("score")
    with pytest.raises(ConfigError, match="not a Python file"):
        reward_from_file(f"{tmp_path / 'reward.txt'}:score")


@pytest.mark.parametrize("name", ["other", "NUMBER", ""])
def test_a_function_that_is_not_there(tmp_path, name):
    file = write(tmp_path, "NUMBER = 3\ndef score(talks): ...\ndef second(talks): ...\ndef _hidden(talks): ...\n")
    with pytest.raises(ConfigError, match=rf"no function '{name}'; it has score, second\n  fix: "):
        reward_from_file(f"{file}:{name}")


# ------------------------------------------------------------------ ensembles


def constant(*scores: float):
    return lambda conversations: torch.tensor(scores)


def test_an_ensemble_is_the_mean_less_the_weighted_variance() -> None:
    """Members 1, 3 and 5, 5: means 3, 4... per conversation: (1, 5) and (3, 5): means 3 and 4, variances 4 and 1."""
    members = [constant(1.0, 3.0), constant(5.0, 5.0)]
    talks = [None, None]
    assert Ensemble(members)(talks).tolist() == [3.0, 4.0]
    assert Ensemble(members, uncertainty=0.5)(talks).tolist() == [1.0, 3.5]
    scores = Ensemble(members).scores(talks)
    assert scores.shape == (2, 2)
    assert disagreement(scores).tolist() == [2.0, 1.0]


def test_an_ensemble_of_one_is_that_one() -> None:
    assert Ensemble([constant(1.0, 3.0)], uncertainty=2.0)([None, None]).tolist() == [1.0, 3.0]


def test_a_file_that_cannot_be_imported_is_named_with_its_line(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import json\nimport nothing_like_this\n\ndef score(conversations):\n    return []\n")
    with pytest.raises(ConfigError, match=r"reward: .*mine\.py:2: importing the file raised ModuleNotFoundError"):
        reward_from_file(f"{path}:score")
