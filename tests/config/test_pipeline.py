"""A pipeline's configuration: how stages are resolved, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from trueup.config import (
    DataConfig,
    DpoConfig,
    LoraConfig,
    PipelineConfig,
    PpoConfig,
    RewardConfig,
    SftConfig,
    TrainDataConfig,
    load_config,
    to_yaml,
)
from trueup.errors import ConfigError

GOOD = """\
name: assistant
base: owner/base
data: all.jsonl
lora: {r: 4}
seed: 5
threads: 2
stages:
  sft:
    method: sft
    data: {rows: 0:600, use: chosen}
  reward:
    method: reward
    from: sft
    lora: null
  dpo:
    method: dpo
    from: sft
    seed: 6
    loss: {name: simpo, gamma: 1}
    lora: {alpha: 8}
  ppo:
    method: ppo
    from: sft
    reward: reward
    prompts: prompts.jsonl
    mix: {data: {rows: 0:10}}
    eval: {data: {rows: 600:700, use: prompt}}
evaluate:
  data: {rows: 700:800}
"""


def load(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> PipelineConfig:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(text, encoding="utf-8")
    return load_config(PipelineConfig, Path("p.yaml"), overrides)


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PipelineConfig:
    return load(GOOD, tmp_path, monkeypatch)


def test_stages_are_resolved_into_their_methods_configurations(good: PipelineConfig) -> None:
    stages = {name: good.stage(name) for name in good.stages}
    assert [method for method, _ in stages.values()] == ["sft", "reward", "dpo", "ppo"]
    classes = [SftConfig, RewardConfig, DpoConfig, PpoConfig]
    assert [type(config) for _, config in stages.values()] == classes
    assert [config.model for _, config in stages.values()] == ["owner/base", *["runs/assistant/sft/model"] * 3]
    assert [config.output for _, config in stages.values()] == [Path("runs/assistant", name) for name in stages]


def test_the_pipelines_keys_are_the_stages_defaults(good: PipelineConfig) -> None:
    configs = [good.stage(name)[1] for name in good.stages]
    assert [config.lora for config in configs] == [LoraConfig(r=4), None, LoraConfig(alpha=8), LoraConfig(r=4)]
    assert [config.seed for config in configs] == [5, 5, 6, 5]
    assert [config.threads for config in configs] == [2, 2, 2, 2]


def test_data_without_a_path_has_the_pipelines(good: PipelineConfig) -> None:
    sft, reward, ppo = (good.stage(name)[1] for name in ("sft", "reward", "ppo"))
    assert isinstance(sft, SftConfig)
    assert isinstance(reward, RewardConfig)
    assert isinstance(ppo, PpoConfig)
    assert sft.data == TrainDataConfig(path="all.jsonl", rows="0:600", use="chosen")
    assert reward.data == TrainDataConfig(path="all.jsonl")
    assert ppo.prompts == TrainDataConfig(path="prompts.jsonl")
    assert ppo.mix is not None
    assert ppo.mix.data == DataConfig(path="all.jsonl", rows="0:10")
    assert ppo.eval.data == DataConfig(path="all.jsonl", rows="600:700", use="prompt")
    assert good.evaluate.data == DataConfig(path="all.jsonl", rows="700:800")
    assert good.evaluate.prompts is None


def test_the_reward_stage_becomes_its_run_folder(good: PipelineConfig) -> None:
    _, ppo = good.model_copy(update={"runs": Path("elsewhere")}).stage("ppo")
    assert isinstance(ppo, PpoConfig)
    folder = Path("elsewhere") / good.name
    assert (ppo.reward, ppo.model, ppo.output) == (str(folder / "reward"), str(folder / "sft/model"), folder / "ppo")


def test_a_reward_that_is_no_stage_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(GOOD, tmp_path, monkeypatch, "stages.ppo.reward=score.py:length")
    _, ppo = config.stage("ppo")
    assert isinstance(ppo, PpoConfig)
    assert ppo.reward == "score.py:length"


def test_overrides_reach_into_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(GOOD, tmp_path, monkeypatch, "stages.sft.data.rows=0:5", "stages.dpo.optim.lr=1e-3", "runs=out")
    sft, dpo = config.stage("sft")[1], config.stage("dpo")[1]
    assert isinstance(sft, SftConfig)
    assert sft.data == TrainDataConfig(path="all.jsonl", rows="0:5", use="chosen")
    assert dpo.optim.lr == 1e-3
    assert dpo.output == Path("out/assistant/dpo")


def test_a_pipeline_and_its_stages_read_back_equal(good: PipelineConfig) -> None:
    Path("again.yaml").write_text(to_yaml(good), encoding="utf-8")
    assert load_config(PipelineConfig, Path("again.yaml")) == good
    for name in good.stages:
        _, stage = good.stage(name)
        Path("stage.yaml").write_text(to_yaml(stage), encoding="utf-8")
        assert load_config(type(stage), Path("stage.yaml")) == stage


DPO_FROM = "from: sft\n    seed"
WRONG = [
    ("use: chosen", "use: chosn", "p.yaml:10: stages.sft.data.use: must be one of auto, chosen, prompt, text; got"),
    ("seed: 6", "sed: 6", "p.yaml:18: stages.dpo.sed: unknown key; did you mean seed? (keys here: method, from,"),
    ("gamma: 1", "lambda: 1", "p.yaml:19: stages.dpo.loss.lambda: unknown key; simpo takes beta, gamma"),
    ("    method: reward\n", "", "p.yaml:11: stages.reward.method: missing; one of sft, reward, dpo, ppo"),
    ("method: reward", "method: rewrd", "p.yaml:12: stages.reward.method: 'rewrd' is not a method; one of sft,"),
    (DPO_FROM, "from: sfd\n    seed", "p.yaml:17: stages.dpo.from: there is no stage 'sfd'; did you mean sft?"),
    (DPO_FROM, "from: ppo\n    seed", "p.yaml:17: stages.dpo.from: ppo comes after dpo, and a stage can only use"),
    (DPO_FROM, "from: dpo\n    seed", "p.yaml:17: stages.dpo.from: dpo cannot start from itself; stages before"),
    (DPO_FROM, "from: reward\n    seed", "stages.dpo.from: reward is a reward model, which cannot generate text"),
    (DPO_FROM, "from: sft\n    model: m\n    seed", "stages.dpo.from: from and model both name"),
    ("reward: reward", "reward: dpo", "p.yaml:24: stages.ppo.reward: dpo is no reward model: its method is dpo"),
    ("    reward: reward\n", "", "p.yaml:21: stages.ppo.reward: missing. A reward run's folder"),
    ("  ppo:", "  p/o:", "p.yaml:21: stages.p/o: a stage's name is a folder's"),
    ("name: assistant", "name: ../x", "p.yaml:1: name: not understood; got '../x'"),
    ("threads: 2", "optim: {lr: 1}", "p.yaml:6: optim: unknown key here; optim belongs to a stage, such as stages.sft"),
    ("lora: {r: 4}", "lora: {r: 0}", "p.yaml:4: lora.r: must be at least 1; got 0"),
]


@pytest.mark.parametrize(("old", "new", "said"), WRONG)
def test_problems_name_their_line(
    old: str, new: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        load(GOOD.replace(old, new, 1), tmp_path, monkeypatch)
    lines = str(caught.value).splitlines()
    assert len([line for line in lines if said in line]) == 1, lines


def test_faults_of_the_pipeline_and_of_its_stages_come_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = GOOD.replace("lora: {r: 4}", "lora: {r: 0}").replace("seed: 6", "sed: 6")
    with pytest.raises(ConfigError) as caught:
        load(text, tmp_path, monkeypatch)
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == ["p.yaml:4", "p.yaml:18"]


def test_a_pipeline_can_be_written_in_python() -> None:
    with pytest.raises(ValueError, match=r"stages\.a\.from: there is no stage 'b'"):
        PipelineConfig(name="n", base="b", stages={"a": {"method": "sft", "data": "d", "from": "b"}})
    config = PipelineConfig(name="n", base="b", stages={"a": {"method": "sft", "data": "d"}})
    assert config.stage("a")[0] == "sft"
