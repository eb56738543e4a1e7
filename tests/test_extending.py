"""The examples of docs/extending.md, run as they stand there; and what is said of functions that cannot be used."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import tiny_data
from tiny import tiny_folder
from trueup import runtime
from trueup.algorithms.advantages import Episodes
from trueup.algorithms.preference import Pairs
from trueup.config import STAGES, DpoConfig, EvaluateConfig, PpoConfig, load_config, to_yaml
from trueup.config.functions import load_function
from trueup.data.rendering.messages import Conversation, Message
from trueup.errors import ConfigError, TrueupError
from trueup.evaluation.items import read_items
from trueup.evaluation.plan import Plan
from trueup.evaluation.suite import measure
from trueup.models.rewards import reward_from_file

GUIDE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
SETTINGS: dict[str, Any] = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)[0])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with all the examples in one mine.py."""
    (tmp_path / "mine.py").write_text("\n".join(CODE), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str) -> None:
    Path("mine.py").write_text("import torch\n" + text, encoding="utf-8")


@pytest.mark.usefixtures("here")
class TestTheExamples:
    def test_the_loss(self, here: Path) -> None:
        """Policy = reference at the start, so beta times the difference is 0 and each loss is the margin of 1."""
        config = tiny_data.stage("dpo", here, loss=SETTINGS["loss"], optim={"steps": 3})
        assert config.loss.params == {"beta": 0.2, "margin": 1.0}
        tiny_data.run(config)
        losses = [row["dpo/loss"] for row in tiny_data.metrics(config)]
        assert losses[0] == pytest.approx(1.0, abs=1e-5)
        assert losses[-1] < losses[0]
        ones = torch.ones(1)
        pairs = Pairs(
            torch.tensor([-3.0]), torch.tensor([-5.0]), ones, ones, torch.tensor([-4.0]), torch.tensor([-4.0])
        )
        loss = load_function("mine.py:margin_loss(beta=0.2)", "loss")
        assert loss(pairs).item() == pytest.approx(1 - 0.2 * 2)

    def test_the_advantage(self, here: Path) -> None:
        rollouts = {**SETTINGS["rollouts"], "per_prompt": 4}
        config = tiny_data.stage("ppo", here, rollouts=rollouts, optim={"steps": 2})
        assert config.rollouts.advantage.params == {"bonus": 0.5}
        assert tiny_data.run(config)["steps"] == 2
        assert "value/loss" not in tiny_data.metrics(config)[0]
        advantage = load_function("mine.py:best_of_group(bonus=0.5)", "rollouts.advantage")
        totals, group = torch.tensor([1.0, 3.0, 2.0, 0.0]), torch.tensor([0, 0, 1, 1])
        episodes = Episodes(torch.zeros(5), totals, torch.tensor([0, 1, 1, 2, 3]), group)
        assert advantage(episodes).tolist() == [0, 0.5, 0.5, 0.5, 0]

    def test_the_reward(self, here: Path) -> None:
        config = tiny_data.stage("ppo", here, reward=SETTINGS["reward"], optim={"steps": 1})
        assert config.reward == "mine.py:short_and_polite(per_word=0.1)"
        tiny_data.run(config)
        shown = [json.loads(line) for line in (here / "run" / "samples.jsonl").read_text().splitlines()]
        expected = [("please" in row["answer"]) - 0.1 * len(row["answer"].split()) for row in shown]
        assert [row["reward"] for row in shown] == pytest.approx(expected)

    def test_the_grader(self, here: Path) -> None:
        questions = [{"question": "2 + 2?", "answer": "4"}, {"question": "Half of 3?", "answer": "1.5"}]
        data = tiny_data.write(here / "questions.jsonl", questions)
        grader = SETTINGS["evaluate"]["grader"]
        settings = EvaluateConfig.model_validate({"grader": grader, "capability": data, "tasks": ["capability"]})
        assert settings.grader == "mine.py:same_number(tolerance=0.01)"
        plan = Plan(here, {"base": tiny_folder(here / "base")}, "base", settings)
        measure(plan, runtime.init("cpu", "float32", 1, "auto"), lambda _: None)
        assert [item.values["right"] for item in read_items(plan.file("base"))] == [0, 0]
        grade = load_function(settings.grader, "evaluate.grader", takes=(1, 3))
        assert grade("It is 4.005.", ["4"], "2 + 2?")
        assert not grade("It is 4.1", ["4"], "2 + 2?")
        assert not grade("", ["4"], "2 + 2?")

    def test_on_the_command_line_and_back(self) -> None:
        required = [
            "model=m",
            "output=o",
            "prompts=p.jsonl",
            "reward=mine.py:short_and_polite",
            "rollouts.per_prompt=2",
        ]
        given = ["rollouts.advantage=mine.py:best_of_group", "rollouts.advantage.bonus=1", "reward.per_word=1"]
        config = load_config(PpoConfig, None, [*required, *given])
        assert config.rollouts.advantage.params == {"bonus": 1.0}
        assert config.reward == "mine.py:short_and_polite(per_word=1)"
        Path("again.yaml").write_text(to_yaml(config), encoding="utf-8")
        assert load_config(PpoConfig, Path("again.yaml")) == config


WRONG_SETTINGS = [
    (
        "dpo",
        "loss={name: mine.py:margin_loss, bta: 1}",
        "unknown key; did you mean beta? mine.py:margin_loss takes beta",
    ),
    ("dpo", "loss={name: mine.py:margin_loss, beta: high}", "loss.beta: must be a number; got 'high'"),
    ("dpo", "loss.name=mine.py:same_number", "same_number(reply, accepted, question) must take 1 argument by position"),
    ("dpo", "loss.name=mine.py:gone", "mine.py: has no function gone; it has"),
    ("dpo", "loss.name=other.py:gone", "other.py: no such file"),
    ("ppo", "rollouts.advantage={name: mine.py:best_of_group, bonos: 1}", "did you mean bonus?"),
    ("ppo", "rollouts.advantage=mine.py:best_of_group", "compares the responses to one prompt: set per_prompt to 2"),
    (
        "ppo",
        "reward={name: mine.py:short_and_polite, per_wrd: 1}",
        "reward.per_wrd: unknown key; did you mean per_word?",
    ),
    ("dpo", "loss={name:mine.py:margin_loss}", "no space after the colon; write name: mine.py:margin_loss"),
    (
        "dpo",
        "loss.name=mine.py:later",
        "mine.py:1: later is an `async def`, which nobody awaits; give a plain function",
    ),
    ("ppo", "reward=mine.py:Thing", "is a class; give a plain function"),
    ("ppo", "reward={name: runs/rm, scale: 1}", "reward.name: must be a function of yours, file.py:function"),
    ("ppo", "watch.gold={name: mine.py:short_and_polite, per_word: much}", "watch.gold.per_word: must be a number"),
]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("method", "setting", "said"), WRONG_SETTINGS)
def test_wrong_settings_are_told_when_the_configuration_is_read(method: str, setting: str, said: str) -> None:
    required = {"dpo": ["data=d.jsonl"], "ppo": ["prompts=d.jsonl", "reward=mine.py:short_and_polite"]}[method]
    Path("d.jsonl").write_text("{}\n")
    source = Path("mine.py").read_text()
    Path("mine.py").write_text(f"async def later(x): pass\nclass Thing: pass\n{source}")
    tiny_folder(Path("m"))
    with pytest.raises(TrueupError) as caught:
        load_config(STAGES[method], None, ["model=m", "output=o", *required, setting], check_files=True)
    assert said in str(caught.value)


WRONG_FUNCTIONS = [
    (
        "loss",
        "def f(pairs): return pairs.chosen.mean()",
        r"returned torch.float32 of shape \(\)\n  fix: return a float",
    ),
    ("loss", "def f(pairs): return pairs.chosen.detach()", "does not depend on the policy's log-probabilities"),
    ("loss", "def f(pairs): return pairs.chosen / 0", r"returned \[-inf, -inf, -inf\]"),
    ("loss", "def f(pairs): return 7", "returned int"),
    (
        "loss",
        "def f(pairs): return pairs.chosen - pairs.ref_chosen",
        "without a reference, as the file's NEEDS_REFERENCE",
    ),
    ("loss", "UNPAIRED = {'f'}\ndef f(pairs): return pairs.chosen", "raised AttributeError.*Completions of 3"),
    ("advantage", "def f(episodes): return episodes.totals", r"returned torch.float32 of shape \(4,\)"),
    ("advantage", "def f(episodes): return 2 * episodes.values", "without values, as the file's NEEDS_VALUES"),
    ("estimator", "def f(logps, ref_logps): return (logps - ref_logps).mean()", r"kl.estimator: mine.py:f.*shape \(\)"),
    (
        "kl loss",
        "def f(logps, ref_logps): return (logps - ref_logps).detach()",
        r"as a loss \(kl.apply: loss\): does not depend on the policy's log-prob",
    ),
    ("kl logged", "def f(logps, ref_logps): return None", "kl.logged: mine.py:f.*returned NoneType"),
    (
        "loss",
        "def f(pairs):\n  x = 1\n  raise KeyError('no\\nway')",
        r"mine.py:4: calling it raised KeyError: 'no\\nway' \(on",
    ),
    ("loss", "import sys\ndef f(pairs): sys.exit(3)", r"mine.py:3: calling it ended with sys.exit\(3\)"),
    ("loss", "import sys\nsys.exit()\ndef f(pairs): pass", r"mine.py:3: importing the file ended with sys.exit\(\)"),
    ("loss", "def f(pairs:\n", r"mine.py:2: importing the file raised SyntaxError: '\(' was never closed\n  fix: make"),
    ("loss", "async def f(pairs): return pairs.chosen", r"f is an `async def`, .*\n  fix: def f\("),
    ("loss", "class f:\n  pass", r"mine.py: f is a class\n  fix: name a function .*, or an instance: mine = f\(\)"),
    (
        "loss",
        "def f(pairs):\n  pairs.rejected.detach().zero_()\n  return pairs.chosen",
        r"in place \(rejected\).*clone",
    ),
    (
        "loss",
        "def f(pairs): return torch.where(pairs.chosen < 0, pairs.chosen, (0 * pairs.chosen).sqrt())",
        "gradient is",
    ),
    (
        "loss",
        "def f(pairs): return torch.ones(3, device='meta')",
        r"returned a tensor on meta\n  fix: return one on cpu",
    ),
    ("advantage", "def f(episodes): return episodes.rewards.zero_()", r"changed its input in place \(rewards\)"),
    ("estimator", "def f(logps, ref_logps): return ref_logps.zero_()", r"changed its input in place \(argument 2\)"),
    (
        "reward",
        "def f(talks): return [1.0]",
        r"reward: mine.py:f gave 1 scores for 2 conversations \(called on 2 prompts of the data with the answer",
    ),
    (
        "reward",
        "def f(talks): return None",
        "reward: mine.py:f returned None, which is not a list of numbers.*\n  fix: ",
    ),
    ("reward", "def f(talks): return [float('nan')] * 2", "gave the score nan for the answer .A made-up answer."),
    ("reward", "def f(talks): return [10**400] * 2", "which is not a list of numbers"),
    (
        "reward",
        "def f(talks): return [talk.answer for talk in talks]",
        "'answer' .*\n  fix: .*other columns by further parameters",
    ),
    (
        "reward",
        "def f(prompts, completions, answer): return [1.0]",
        r"\n  fix: def f\(conversations, \*, scale=1.0\): first",
    ),
    ("reward", "def f(talks): return talks[0].nothing", "raised AttributeError"),
]


@pytest.mark.parametrize(
    "source",
    [
        "mine = lambda talks: [1.0] * len(talks)",
        "class F:\n  def __call__(self, talks): return [1.0] * len(talks)\nmine = F()",
        "from functools import partial\nmine = partial(lambda talks, k: [k] * len(talks), k=1.0)",
        "try:\n  from nowhere import mine\nexcept ImportError:\n  def mine(talks): return torch.ones(len(talks), 1)",
        "def mine(talks):\n  n = len(talks)\n  talks.clear()\n  return [True] * n",
    ],
)
def test_whatever_can_be_called_is_a_function(source: str, here: Path) -> None:
    """Its file's name may hold a space; and the checks of the configuration let it pass."""
    write(source)
    (here / "mine.py").rename(here / "my rewards.py")
    tiny_folder(here / "m")
    tiny_data.write(here / "d.jsonl", tiny_data.rows("prompts", 2))
    settings = ["model=m", "output=o", "prompts=d.jsonl", "reward=my rewards.py:mine"]
    config = load_config(PpoConfig, None, settings, check_files=True)
    assert reward_from_file(config.rewards[0])([Conversation((Message("user", "q"), Message("assistant", "a")))]) == 1.0


def test_a_resumed_run_says_that_the_file_of_its_function_has_changed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"loss": SETTINGS["loss"], "save": {"every": 1}}
    tiny_data.run(tiny_data.stage("dpo", here, **settings, optim={"steps": 1}))
    write("NEEDS_REFERENCE = {'margin_loss'}\ndef margin_loss(pairs, *, beta=0.1, margin=1.0): return -pairs.chosen")
    assert "mine.py" not in capsys.readouterr().err
    tiny_data.run(tiny_data.stage("dpo", here, **settings, optim={"steps": 1}))
    told = " ".join(capsys.readouterr().err.split())
    assert re.search(r"so its bits may differ: loss, mine.py: [0-9a-f]{16} -> [0-9a-f]{16}", told)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("kind", "source", "said"), WRONG_FUNCTIONS)
def test_a_function_that_cannot_be_used_stops_before_weights_load(
    kind: str, source: str, said: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trueup.recipes import stage

    monkeypatch.setattr(stage, "load_network", lambda *_: pytest.fail("weights were loaded"))
    write(source)
    settings: dict[str, Any] = {
        "loss": {"loss": {"name": "mine.py:f"}},
        "advantage": {"rollouts": {"advantage": "mine.py:f"}},
        "estimator": {"kl": {"estimator": "mine.py:f"}},
        "kl loss": {"kl": {"estimator": "mine.py:f", "apply": "loss"}},
        "kl logged": {"kl": {"logged": "mine.py:f"}},
        "reward": {"reward": "mine.py:f"},
    }[kind]
    config = tiny_data.stage("dpo" if kind == "loss" else "ppo", here, **settings)
    with pytest.raises(ConfigError, match=f"(?s){said}"):
        tiny_data.run(config)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "def f(reply, accepted, question): return 3",
            r"evaluate.grader: mine.py:f gave 3.0 for .*\n  fix: return a num",
        ),
        (
            "def f(reply, accepted, question): return None",
            "gave None for .*, which is no number.*\n  fix: return a num",
        ),
        ("def f(reply, accepted, question): return '0.5'", 'gave "0.5" for .*, which is no number'),
        ("def f(reply, accepted, question): return reply[99]", "mine.py:2: calling it raised IndexError: .*\n  fix: "),
        ("def f(reply, accepted, question): raise SystemExit", r"ended with sys.exit\(\)"),
        ("async def f(reply, accepted, question): return 1", "f is an `async def`"),
        ("def f(reply, accepted): return 1", "cannot be called with 1 or 3 arguments"),
    ],
)
def test_a_grader_that_cannot_be_used_stops_before_weights_load(source: str, said: str, here: Path) -> None:
    write(source)
    data = tiny_data.write(here / "questions.jsonl", [{"question": "2 + 2?", "answer": "4"}])
    settings = EvaluateConfig.model_validate({"grader": "mine.py:f", "capability": data, "tasks": ["capability"]})
    plan = Plan(here, {"base": "no/model"}, "base", settings)
    with pytest.raises(ConfigError, match=said):
        measure(plan, runtime.init("cpu", "float32", 1, "auto"), lambda _: None)


def test_a_missing_file_of_an_old_run_does_not_stop_its_configuration_from_being_read(here: Path) -> None:
    (here / "mine.py").unlink()
    config = load_config(
        DpoConfig, None, ["model=m", "output=o", "data=d", "loss={name: mine.py:margin_loss, beta: 2}"]
    )
    assert config.loss.params == {"beta": 2}
    assert not config.loss.needs_reference


def test_a_reward_takes_another_column_by_name(here: Path) -> None:
    rows = {"2 + 2?": "4", "1 + 1?": "2"}
    talks = [
        Conversation((Message("user", question), Message("assistant", "It is 4")), columns={"answer": answer})
        for question, answer in rows.items()
    ]
    assert reward_from_file("mine.py:known_answer")(talks).tolist() == [1.0, 0.0]
