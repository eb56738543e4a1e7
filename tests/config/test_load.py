"""Configuration: what is accepted, what is refused, and what the refusal says."""

from __future__ import annotations

import contextlib
import json
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from thorough import trials
from trueup.algorithms import advantages, kl, preference
from trueup.config import (
    STAGES,
    ComparisonConfig,
    DataConfig,
    DpoConfig,
    GatesConfig,
    KlConfig,
    LoraConfig,
    OptimConfig,
    PipelineConfig,
    PpoConfig,
    PreferenceLossConfig,
    RankConfig,
    RolloutConfig,
    SftConfig,
    StageConfig,
    TrainDataConfig,
    describe,
    load_config,
    to_yaml,
)
from trueup.config.explain import other_tools_key, places_of, section_of
from trueup.config.functions import ADVANTAGES, ESTIMATORS, LOSSES, FunctionTable
from trueup.config.other_tools import OTHER_NAMES
from trueup.config.sections import Section
from trueup.errors import ConfigError

SFT = ["model=m", "output=o", "data=d.jsonl"]
PPO = ["model=m", "output=o", "prompts=p.jsonl", "reward=r"]
REQUIRED = {"sft": SFT, "reward": SFT, "dpo": SFT, "ppo": PPO}

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes `c.yaml` into an empty current folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        Path("c.yaml").write_text(text, encoding="utf-8")
        return Path("c.yaml")

    return write


def refusal(method: str, *overrides: str) -> str:
    """Return the error message for overrides on top of the required keys."""
    with pytest.raises(ConfigError) as caught:
        load_config(STAGES[method], None, [*REQUIRED[method], *overrides])
    return str(caught.value)


def file_refusal(cls: type[StageConfig] | type[PipelineConfig], path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(cls, path, overrides)
    return str(caught.value)


# ------------------------------------------------------------------ accepted


def test_the_least_that_must_be_given() -> None:
    config = load_config(SftConfig, None, SFT)
    assert (config.model, config.output, config.data.path) == ("m", Path("o"), "d.jsonl")
    assert config.lora is None


@pytest.mark.parametrize("method", STAGES)
def test_each_stage_has_a_learning_rate_of_its_own(method: str) -> None:
    cls = STAGES[method]
    assert load_config(cls, None, [*REQUIRED[method], "optim.epochs=3"]).optim == OptimConfig(lr=cls.lr, epochs=3)


@pytest.mark.parametrize("method", STAGES)
def test_the_default_rate_depends_on_lora(method: str) -> None:
    """Five to ten times the rate of full fine-tuning, in a stage alone and where `lora` is the pipeline's."""
    cls, least = STAGES[method], REQUIRED[method]
    adapters = [load_config(cls, None, [*least, f"lora={lora}"]) for lora in ("{}", "{r: 1}", "{r: 256}")]
    assert {config.optim.lr for config in adapters} == {cls.lora_lr}
    assert load_config(cls, None, [*least, "lora=null"]).optim.lr == cls.lr
    assert 4.9 < cls.lora_lr / cls.lr < 10.1
    stages = {
        name: {
            "method": method,
            **lora,
            **dict.fromkeys(cls.data_fields, "d"),
            **({"reward": "r"} if least[3:] else {}),
        }
        for name, lora in {"shared": {}, "off": {"lora": None}, "given": {"optim": {"lr": 1e-7}}}.items()
    }
    pipeline = PipelineConfig.model_validate({"name": "n", "base": "b", "lora": {"r": 8}, "stages": stages})
    rates = [pipeline.stage(name)[1].optim.lr for name in stages]
    assert rates == [cls.lora_lr, cls.lr, 1e-7]
    assert [pipeline.stage(name)[1].gives_lr for name in stages] == [False, False, True]


@pytest.mark.parametrize("method", STAGES)
def test_the_printed_configuration_has_both_rates(method: str) -> None:
    cls = STAGES[method]
    [row] = [row for row in describe(cls) if row.place == ("optim", "lr")]
    assert float(row.value) == cls.lr
    assert f"{cls.lora_lr:g} with lora" in row.help


def test_python_takes_what_yaml_takes() -> None:
    config = SftConfig(model="m", output=Path("o"), data="d.jsonl", lora=LoraConfig())  # pyright: ignore[reportArgumentType]
    assert config == load_config(SftConfig, None, [*SFT, "lora={}"])


def test_numbers_as_people_write_them(write: Write) -> None:
    path = write("model: m\noutput: o\ndata: d\noptim: {lr: 1e-4, weight_decay: 0, clip: 1}\nlora: {alpha: 16}\n")
    config = load_config(SftConfig, path)
    assert (config.optim.lr, config.optim.weight_decay, config.optim.clip) == (1e-4, 0.0, 1.0)
    assert config.lora is not None
    assert config.lora.alpha == 16.0


def test_words_that_yaml_1_1_takes_for_something_else(write: Write) -> None:
    config = load_config(SftConfig, write("model: no\noutput: on\ndata: {path: 2024-01-02, rows: 1:30, split: yes}\n"))
    assert (config.model, config.output, config.data.path) == ("no", Path("on"), "2024-01-02")
    assert (config.data.rows, config.data.split) == ("1:30", "yes")


def test_a_later_override_wins_and_makes_sections() -> None:
    config = load_config(SftConfig, None, [*SFT, "lora={r: 8}", "lora.r=4", "lora.targets=[q_proj, v_proj]", "seed=7"])
    assert config.lora == LoraConfig(r=4, targets=["q_proj", "v_proj"])
    assert config.seed == 7


def test_an_override_opens_the_short_form_of_data() -> None:
    config = load_config(SftConfig, None, [*SFT, "data.rows=0:600", "data.use=chosen"])
    assert config.data == TrainDataConfig(path="d.jsonl", rows="0:600", use="chosen")


def test_an_override_can_hold_an_equals_sign_and_can_be_null() -> None:
    config = load_config(SftConfig, None, [*SFT, "data=a=b.jsonl", "lora={r: 8}", "lora=null"])
    assert (config.data.path, config.lora) == ("a=b.jsonl", None)


@pytest.mark.parametrize(
    ("rows", "span"), [(None, (0, None)), ("5:", (5, None)), (":7", (0, 7)), ("5:7", (5, 7)), (":", (0, None))]
)
def test_rows_as_numbers(rows: str | None, span: tuple[int, int | None]) -> None:
    assert DataConfig(path="d", rows=rows).span == span


def test_a_configuration_cannot_be_changed() -> None:
    config = load_config(SftConfig, None, SFT)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_every_field_has_help() -> None:
    for cls in (*STAGES.values(), PipelineConfig, DataConfig, KlConfig, RolloutConfig, OptimConfig, LoraConfig):
        assert [name for name, field in cls.model_fields.items() if not field.description] == []


# ------------------------------------------------------------------ unknown keys


def test_unknown_key_names_its_line_the_nearest_and_all_there_are(write: Write) -> None:
    path = write("model: m\noutput: o\ndata: d\noptim:\n  lrr: 1e-5\n")
    keys = "lr, epochs, steps, batch_size, warmup, schedule, weight_decay, clip, bad_steps"
    assert file_refusal(SftConfig, path) == f"c.yaml:5: optim.lrr: unknown key; did you mean lr? (keys here: {keys})"


def test_a_losss_unknown_key_suggests_only_that_losss() -> None:
    expected = "override loss.beta_=1: unknown key; did you mean beta? sigmoid takes beta, label_smoothing"
    assert refusal("dpo", "loss.beta_=1") == expected


def test_beta_at_the_top_suggests_the_stages_own() -> None:
    assert "unknown key; did you mean loss.beta? (keys here" in refusal("dpo", "beta_=1")
    assert "beta" not in refusal("sft", "beta_=1").partition(": ")[2]


def test_a_key_of_another_loss() -> None:
    expected = "override loss.gamma=1: gamma belongs to simpo; sigmoid takes beta, label_smoothing"
    assert refusal("dpo", "loss.gamma=1") == expected


def test_a_key_that_belongs_deeper() -> None:
    assert refusal("sft", "lr=3") == "override lr=3: unknown key; lr belongs under optim: optim.lr"
    assert refusal("dpo", "beta=3") == "override beta=3: unknown key; beta belongs under loss: loss.beta"


def test_a_key_that_belongs_higher() -> None:
    assert "unknown key here; did you mean max_length?" in refusal("sft", "optim.max_length=3")


@pytest.mark.parametrize(
    ("method", "key", "name"),
    [
        ("sft", "learning_rate", "optim.lr"),
        ("sft", "per_device_train_batch_size", "optim.batch_size"),
        ("dpo", "loss_type", "loss.name"),
        ("ppo", "num_generations", "rollouts.per_prompt"),
    ],
)
def test_another_tools_name_for_a_key(method: str, key: str, name: str) -> None:
    assert refusal(method, f"{key}=1").startswith(f"override {key}=1: unknown key; here it is {name}")


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_every_name_of_another_tool_leads_to_a_key_that_exists(name: str) -> None:
    """Each of its keys is one of a stage (or of the pipeline), and setting the name says so there."""
    meaning = OTHER_NAMES[name]
    assert meaning.keys or meaning.note
    for key in meaning.keys:
        homes = [cls for cls in (*STAGES.values(), PipelineConfig) if (other_tools_key(cls, name) or "").startswith(
            f"here it is {key}")]  # fmt: skip
        assert homes, key
    for method, cls in STAGES.items():
        if other_tools_key(cls, name) and not any(place[-1] == name for place in places_of(cls)):
            assert (other_tools_key(cls, name) or "") in refusal(method, f"{name}=1")


@pytest.mark.parametrize(
    ("method", "key", "said"),
    [
        ("sft", "load_in_4bit", "here it is dtype (weights are not quantized for training"),
        ("sft", "push_to_hub", "trueup export RUN --push-to-hub OWNER/NAME"),
        ("dpo", "resume_from_checkpoint", "the same command with the same output resumes"),
        ("dpo", "attn_implementation", "not needed: the fastest attention"),
        ("dpo", "beta", "beta belongs under loss: loss.beta"),
        ("ppo", "beta", "here it is kl.coef"),
        ("ppo", "dataset_name", "here it is prompts"),
        ("sft", "Learning-Rate", "here it is optim.lr"),
        ("dpo", "kto_chosen_weight", "here it is loss.desirable_weight"),
    ],
)
def test_names_of_trl_and_others(method: str, key: str, said: str) -> None:
    assert said in refusal(method, f"{key}=1")


def test_another_tools_name_at_the_top_of_a_pipeline() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(PipelineConfig, None, [*PIPELINE, "learning_rate=1", "output_dir=x"])
    assert "learning_rate=1: unknown key here; it belongs to a stage, such as stages.a: there it is optim.lr" in str(
        caught.value
    )
    assert "output_dir=x: unknown key; here it is runs" in str(caught.value)
    with pytest.raises(ConfigError, match="unknown key; did you mean stages"):
        load_config(PipelineConfig, None, [*PIPELINE, "stage=1"])


@pytest.mark.parametrize(
    ("method", "setting", "key", "value"),
    [
        ("sft", "log=wandb", "log", ["wandb"]),
        ("sft", "allow=special-text", "allow", ["special-text"]),
        ("sft", "lora.targets=q_proj", "lora.targets", ["q_proj"]),
        ("sft", "lora.targets=all-linear", "lora.targets", "all-linear"),
        ("dpo", "loss.name=dpo", "loss.name", "sigmoid"),
    ],
)
def test_a_single_name_is_a_list_of_one_and_dpo_is_sigmoid(method: str, setting: str, key: str, value: object) -> None:
    config: Any = load_config(STAGES[method], None, [*REQUIRED[method], setting])
    for part in key.split("."):
        config = getattr(config, part)
    assert config == value


def test_a_single_name_in_evaluate_and_in_a_pipeline() -> None:
    settings = ["evaluate={tasks: capability, harness: arc_easy}", "allow=special-text"]
    config = load_config(PipelineConfig, None, [*PIPELINE, *settings])
    assert (config.evaluate.tasks, config.evaluate.harness) == (["capability"], ["arc_easy"])
    assert config.allow == config.stage("a")[1].allow == ["special-text"]


def test_another_tools_name_is_not_given_where_the_stage_has_no_such_key() -> None:
    assert "here it is" not in refusal("sft", "num_generations=1")


# ------------------------------------------------------------------ wrong values


@pytest.mark.parametrize(
    ("method", "override", "said"),
    [
        ("sft", "optim.lr=0", "must be above 0; got 0"),
        ("sft", "optim.lr=fast", "must be a number; got 'fast'"),
        ("sft", "optim.lr=.inf", "must be a finite number; got inf"),
        ("sft", "optim.lr=true", "must be a number; got true"),
        ("sft", "optim.batch_size=1.5", "must be a whole number; got 1.5"),
        ("sft", "optim.warmup=1.5", "1.5 is neither a fraction below 1 nor a whole number of steps"),
        ("sft", "optim=3", "must be a mapping with keys lr, epochs, steps, batch_size, warmup, schedule, weight_decay"),
        ("sft", "over_length=cutt", "must be one of error, drop, cut; got 'cutt'; did you mean cut?"),
        ("sft", "log=[wand]", "must be one of tensorboard, wandb, trackio; got 'wand'; did you mean wandb?"),
        ("sft", "gradient_checkpointing=yes", "must be true or false; got 'yes'"),
        (
            "sft",
            "device=gpu",
            "not understood; got 'gpu'; write cuda. auto (the GPU when there is one), cpu, mps, cuda or cuda:1.",
        ),
        ("sft", "data.rows=600", "must be text or null; got 600"),
        ("sft", "data.rows=7:5", "7:5 holds no row: stop must be above start"),
        ("sft", "data.columns={prompt: 3}", "data.columns.prompt: must be text; got 3"),
        ("sft", "lora.targets=[]", "must be all-linear, or a list of layer names such as [q_proj, v_proj]; got "),
        ("sft", "lora.targets=[1]", "must be all-linear, or a list of layer names such as [q_proj, v_proj]; got "),
        ("sft", "lora=16", "must be a mapping with keys r, alpha, dropout, targets; got 16"),
        ("sft", "lora.targets=linear", "must be one of all-linear or a list; got 'linear'"),
        ("sft", "max_length=null", "must be a whole number; got null"),
        ("dpo", "loss.name=simp", "must be one of sigmoid, "),
        ("dpo", "loss.name=simp", "got 'simp'; did you mean simpo?"),
        ("dpo", "loss.beta=0", "must be above 0; got 0"),
        ("dpo", "loss.label_smoothing=0.5", "must be at least 0 and below 0.5; got 0.5"),
        ("dpo", "loss.beta=high", "must be a number; got 'high'"),
        ("dpo", "loss=simpo", "must be a mapping with keys name; got 'simpo'; write loss.name=simpo"),
        ("ppo", "rollouts.clip=1", "must be below 1; got 1"),
        ("ppo", "kl.estimator=k4", "must be one of k1, k2, k3; got 'k4'"),
    ],
)
def test_a_wrong_value_is_shown_with_what_is_allowed(method: str, override: str, said: str) -> None:
    text = refusal(method, override)
    assert text.startswith(f"override {override}: ")
    assert said in text
    assert "\n" not in text


def test_a_missing_key_says_what_it_is_for(write: Write) -> None:
    assert file_refusal(SftConfig, write("model: m\noutput: o\n")).startswith("c.yaml: data: missing. Conversations")


def test_all_problems_come_at_once_in_the_files_order(write: Write) -> None:
    path = write("model: m\noutput: o\ndata: d\noptim:\n  lr: x\n  clip: -1\nseed: -1\n")
    lines = file_refusal(SftConfig, path, "threads=0").splitlines()
    places = [line.partition(": ")[0] for line in lines]
    assert places == ["c.yaml:5", "c.yaml:6", "c.yaml:7", "override threads=0"]


def test_of_many_problems_five_are_shown() -> None:
    lines = refusal("sft", *(f"key{number}=1" for number in range(20))).splitlines()
    assert len(lines) == 6
    assert lines[-1] == "and 15 more"


# ------------------------------------------------------------------ settings without effect, and contradictions


@pytest.mark.parametrize(
    ("method", "overrides", "said"),
    [
        ("ppo", ["kl.horizon=500"], "has no effect: it is for the adaptive penalty; set kl.target"),
        ("ppo", ["rollouts={advantage: rloo, per_prompt: 4, lam: 0.9}"], "rollouts.lam: has no effect"),
        ("ppo", ["rollouts={advantage: grpo, per_prompt: 4, value_coef: 0.1}"], "grpo has no value head"),
        ("ppo", ["rollouts.advantage=rloo"], "rloo compares the responses to one prompt: set per_prompt to 2 or more"),
        ("ppo", ["rollouts={episodes: 65, per_prompt: 2}"], "65 is not a multiple of per_prompt, 2"),
        ("ppo", ["kl={coef: 0, target: 6.0}"], "0 cannot be adapted"),
        ("ppo", ["rollouts.episodes=8"], "optim.batch_size: 16 is more than rollouts.episodes, 8: lower it"),
        ("ppo", ["max_length=100"], "leaves no room for a prompt"),
        ("sft", ["eval={data: e.jsonl, patience: 3}"], "has no effect: it counts measurements; set eval.every"),
        ("sft", ["eval.every=10"], "has no effect: there is nothing to measure on; set eval.data"),
        ("sft", ["optim={epochs: 2, steps: 10}"], "has no effect: optim.steps decides the length"),
        ("dpo", ["loss.name=simpo", "reference=m"], "has no effect: simpo compares with no reference"),
    ],
)
def test_a_setting_without_effect_is_refused(method: str, overrides: list[str], said: str) -> None:
    assert said in refusal(method, *overrides)


def test_defaults_are_never_without_effect() -> None:
    config = load_config(PpoConfig, None, [*PPO, "rollouts={advantage: grpo, per_prompt: 4}", "optim.steps=10"])
    assert config.rollouts.lam == 0.95


# ------------------------------------------------------------------ the preference losses' parameters


@pytest.mark.parametrize(
    ("table", "functions", "marks"),
    [
        (LOSSES, preference.LOSSES, {"NEEDS_REFERENCE": preference.NEEDS_REFERENCE, "UNPAIRED": preference.UNPAIRED}),
        (
            ADVANTAGES, advantages.ADVANTAGES,
            {"NEEDS_VALUES": advantages.NEEDS_VALUES, "NEEDS_GROUPS": advantages.NEEDS_GROUPS},
        ),
        (ESTIMATORS, kl.ESTIMATORS, {}),
    ],
)  # fmt: skip
def test_the_functions_read_from_the_source_are_the_modules(
    table: FunctionTable, functions: dict[str, Callable[..., object]], marks: dict[str, frozenset[str]]
) -> None:
    assert list(table.ours()) == list(functions)
    for name, function in functions.items():
        assert table.ours()[name] == (function.__kwdefaults__ or {})
        for mark, names in marks.items():
            assert table.marked(mark, name) == (name in names)


def test_a_losss_parameters_are_filled_and_typed() -> None:
    config = load_config(DpoConfig, None, [*SFT, "loss={name: simpo, beta: 3}"])
    assert config.loss.name == "simpo"
    assert config.loss.params == {"beta": 3.0, "gamma": 0.5}
    assert isinstance(config.loss.params["beta"], float)
    assert config.loss == PreferenceLossConfig(name="simpo", params={"beta": 3.0})


@pytest.mark.parametrize("name", LOSSES.ours())
def test_each_loss_takes_its_parameters(name: str) -> None:
    config = load_config(DpoConfig, None, [*SFT, f"loss.name={name}"])
    assert config.loss.params == LOSSES.ours()[name]


# ------------------------------------------------------------------ advantages and KL estimators


def test_an_advantage_and_its_parameters() -> None:
    groups = "rollouts.per_prompt=4"
    short = load_config(PpoConfig, None, [*PPO, groups, "rollouts.advantage=grpo"])
    assert short.rollouts.advantage.params == {"scale": True}
    assert short == load_config(PpoConfig, None, [*PPO, groups, "rollouts.advantage={name: grpo, scale: true}"])
    dr_grpo = load_config(PpoConfig, None, [*PPO, groups, "rollouts.advantage={name: grpo, scale: false}"])
    assert dr_grpo.rollouts.advantage.params == {"scale": False}
    assert dr_grpo == load_config(
        PpoConfig, None, [*PPO, groups, "rollouts.advantage=grpo", "rollouts.advantage.scale=false"]
    )


def test_an_advantage_alone_is_written_as_earlier_versions_wrote_it() -> None:
    """So the config.yaml of an older run folder compares equal; gae's parameters are keys of rollouts, as ever."""
    config = load_config(PpoConfig, None, PPO)
    assert "  advantage: gae\n  gamma: 1.0\n  lam: 0.95\n" in to_yaml(config)
    assert "  estimator: k1\n" in to_yaml(config)


@pytest.mark.parametrize("name", ["k2", "k3"])
def test_an_estimator_that_is_no_penalty_in_the_reward_names_both_ways(name: str) -> None:
    """Earlier versions took it; it loses nearly all of the penalty's gradient there."""
    text = refusal("ppo", f"kl.estimator={name}")
    assert f"kl.estimator={name}: {name} in the reward loses nearly all" in text
    for way in ("kl.estimator=k1", f"kl.apply=loss with {name}", f"kl.logged={name}"):
        assert way in text
    assert load_config(PpoConfig, None, [*PPO, f"kl.logged={name}"]).kl.estimator.name == "k1"
    assert load_config(PpoConfig, None, [*PPO, "kl.apply=loss", f"kl.estimator={name}"]).kl.estimator.name == name


def test_a_penalty_in_the_loss() -> None:
    assert load_config(PpoConfig, None, [*PPO, "kl.apply=loss"]).kl.estimator.name == "k2"
    assert "mean gradient of zero" in refusal("ppo", "kl={apply: loss, estimator: k1}")
    assert "must be one of reward, loss" in refusal("ppo", "kl.apply=losses")


def test_gaes_parameters_may_stand_next_to_its_name() -> None:
    config = load_config(PpoConfig, None, [*PPO, "rollouts.advantage={name: gae, lam: 0.9}"])
    assert config.rollouts.lam == 0.9
    assert config == load_config(PpoConfig, None, [*PPO, "rollouts.lam=0.9"])
    text = refusal("ppo", "rollouts={advantage: {lam: 0.9}, lam: 0.8}")
    assert "rollouts.advantage.lam: stands in rollouts.lam too; remove one" in text


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rollouts.advantage=grop", "must be one of gae, rloo, grpo; got 'grop'; did you mean grpo?"),
        ("rollouts.advantage={name: grpo, scales: false}", "unknown key; did you mean scale? grpo takes scale"),
        ("rollouts.advantage={name: grpo, scale: 1}", "must be true or false; got 1"),
        ("rollouts.advantage={name: rloo, scale: true}", "scale belongs to grpo; rloo takes no parameter"),
        ("kl.estimator={name: k3, bound: 2}", "unknown key; k3 takes no parameter"),
    ],
)
def test_a_wrong_advantage_or_estimator(override: str, said: str) -> None:
    assert said in refusal("ppo", override)


# ------------------------------------------------------------------ files


def test_a_missing_file_names_the_nearest(write: Write) -> None:
    write("model: m")
    assert file_refusal(SftConfig, Path("cc.yaml")) == "cc.yaml: no such file; did you mean c.yaml?"
    assert file_refusal(SftConfig, Path("no/c.yaml")) == "no/c.yaml: no such file; there is no folder no either"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "c.yaml: the file is empty"),
        ("# a comment\n", "c.yaml: the file is empty"),
        ("- a\n- b\n", "c.yaml:1: must hold `key: value` lines, got 'a list'"),
        ("\n\njust words\n", "c.yaml:3: must hold `key: value` lines, got 'just words'"),
        ("model: m\noptim:\n\tlr: 1\n", "c.yaml:3: a tab; indent with spaces"),
        ("model: m\nlora: {r: 8\nseed: 3\n", "c.yaml:3: not YAML: "),
        ("model: m\n---\nmodel: n\n", "c.yaml:2: a second document begins here"),
        ("model: m\noutput: o\ndata: d\nmodel: n\n", "c.yaml:4: model: the key is given twice; remove one"),
        ("model: !!python/name:os.system\noutput: o\ndata: d\n", "c.yaml:1: model: the tag "),
        (
            "model: m\noutput: o\ndata: d\nlora: &a {r: *a}\n",
            "c.yaml:4: lora.r: an alias of the value that contains it; write the value out",
        ),
        ("? [a, b]\n: 3\n", "c.yaml:1: a key must be a word"),
        ("model: \x07\n", "c.yaml: not YAML text: "),
    ],
)
def test_a_file_that_is_no_configuration(text: str, said: str, write: Write) -> None:
    assert said in file_refusal(SftConfig, write(text))


def test_another_encoding_and_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_bytes("model: m\noutput: Über\n".encode("latin-1"))
    assert file_refusal(SftConfig, Path("c.yaml")) == "c.yaml:2: byte 0xdc is not UTF-8 text; save the file as UTF-8"
    Path("folder").mkdir()
    assert "is a folder; give the .yaml file in it" in file_refusal(SftConfig, Path("folder"))


def test_a_byte_order_mark_and_windows_lines_are_no_problem(write: Write) -> None:
    path = write("")
    path.write_bytes("\ufeffmodel: m\r\noutput: o\r\ndata: d\r\n".encode())
    assert load_config(SftConfig, path).model == "m"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lr", "'lr': not a setting; write key=value, such as optim.lr=1e-5"),
        ("=3", "'=3': not a setting"),
        ("optim..lr=3", "not a setting"),
        ("lora={r: 8", "the value is not YAML"),
        ("model.name=x", "model is 'm', which has no keys"),
        ("lora={r: 8, r: 9}", "the key is given twice"),
    ],
)
def test_an_override_that_is_none(override: str, said: str) -> None:
    assert said in refusal("sft", override)


# ------------------------------------------------------------------ the way back to YAML


@pytest.mark.parametrize(
    ("method", "overrides"),
    [
        ("sft", ["lora={r: 8}", "data={path: d, rows: 1:30, columns: {prompt: question}}", "log=[wandb]"]),
        ("sft", ["optim.steps=5", "eval={data: e, every: 3, patience: 2}", "mix={data: m, weight: 0.5}"]),
        ("reward", ["loss={center: 0.01, margin: true}"]),
        ("dpo", ["loss={name: simpo, gamma: 1}"]),
        ("dpo", ["reference=other", "loss.beta=0.5"]),
        ("ppo", ["rollouts={advantage: rloo, per_prompt: 4}"]),
        ("ppo", ["rollouts={advantage: {name: grpo, scale: false}, per_prompt: 4}"]),
        ("ppo", ["reward={name: mine.py:score, scale: 2}", "rollouts.lam=0.5"]),
        ("ppo", ["kl={target: 6, horizon: 500}", "rollouts.lam=0.9"]),
    ],
)
def test_the_resolved_configuration_reads_back_equal(method: str, overrides: list[str], write: Write) -> None:
    config = load_config(STAGES[method], None, [*REQUIRED[method], *overrides])
    assert load_config(STAGES[method], write(to_yaml(config))) == config


TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1),
    st.sampled_from(
        ["1e-4", "no", "~", "null", "True", ".5", "0x1f", "1:30", "2024-01-02", "- a", "a: b", "#", "<<", "="]
    ),
)


@trials(50)
@given(path=TEXTS, model=TEXTS, columns=st.dictionaries(TEXTS, TEXTS, max_size=3), lr=st.floats(1e-12, 10.0))
@example(path="~0/d", model="~0", columns={}, lr=1.0)  # no user has that name: it stays, as in a shell
def test_any_text_reads_back_equal(
    path: str, model: str, columns: dict[str, str], lr: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = DataConfig(path=path, columns=columns)
    config = SftConfig(model=model, output=Path("o"), data=data, optim=OptimConfig(lr=lr))
    file = tmp_path_factory.getbasetemp() / "round.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(SftConfig, file) == config


@given(
    text=st.text(
        alphabet=st.sampled_from("model: output: data optim.lr=1e5{}[],-#&*!|>'\"%@`~?\n\t \x00é"), max_size=60
    )
)
def test_no_file_and_no_override_raises_anything_else(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    file.write_text(text, encoding="utf-8")
    for cls in (SftConfig, PipelineConfig):
        with pytest.raises(ConfigError):
            load_config(cls, file)
    with contextlib.suppress(ConfigError):
        load_config(SftConfig, None, [*SFT, text])


PIPELINE = [
    "name=n",
    "base=b",
    "stages.a={method: sft, data: d}",
    "stages.b={method: ppo, from: a, prompts: d, reward: r}",
]
KEYS = [
    (DpoConfig, SFT, ["model", "data", "data.columns", "optim", "lora", "log", "eval.data", "loss", "loss.name"]),
    (DpoConfig, SFT, ["loss.params", "loss.params.beta"]),
    (PipelineConfig, PIPELINE, ["data", "lora", "stages", "stages.a", "stages.a.method", "stages.b.from"]),
    (PipelineConfig, PIPELINE, ["stages.b.reward", "stages.b.lora", "evaluate", "evaluate.data"]),
]


@given(
    value=st.recursive(st.none() | st.booleans() | st.integers() | st.text("ab:", max_size=3), st.lists, max_leaves=4)
)
@trials(30)
def test_no_value_of_any_key_raises_anything_else(value: object) -> None:
    for cls, required, keys in KEYS:
        for key in keys:
            with contextlib.suppress(ConfigError):
                load_config(cls, None, [*required, f"{key}={json.dumps(value)}"])


# ------------------------------------------------------------------ numbers without sense


WRONG_NUMBERS = [".nan", ".inf", "-.inf", "-1", "1e-320", "1e300", str(10**30), "-1e-9"]
LEAST: dict[type[Section], list[str]] = {
    **{STAGES[method]: least for method, least in REQUIRED.items()},
    ComparisonConfig: ["data=d"],
    RankConfig: [],
    PipelineConfig: ["name=n", "base=b", "stages.a={method: sft, data: d}"],
}
"""Class -> the required keys, and those without which others have no effect."""


def takes_number(annotation: object) -> bool:
    """Return True if a field's annotation has int or float among its types."""
    if get_origin(annotation) in (Union, types.UnionType, Annotated):
        return any(takes_number(part) for part in get_args(annotation))
    return annotation in (int, float)


def numeric_keys(cls: type[Section], around: str = "", depth: int = 0) -> list[str]:
    """Every key that takes a number, also in the sections, found by the types of the fields."""
    keys: list[str] = []
    for name, field in cls.model_fields.items():
        section = section_of(field)
        if section is not None and issubclass(section, Section) and depth < 2 and name != "evaluate":
            keys += numeric_keys(section, f"{around}{name}.", depth + 1)
        elif takes_number(field.annotation):
            keys.append(f"{around}{name}")
    return keys


def test_every_numeric_key_is_found() -> None:
    found = numeric_keys(PpoConfig)
    assert {"seed", "optim.lr", "lora.alpha", "mix.weight", "kl.target", "rollouts.dual_clip", "prompts.weight"} < {
        *found
    }
    assert "gates.win_rate" in numeric_keys(ComparisonConfig)


NUMERIC = {key: cls for cls in reversed(LEAST) for key in numeric_keys(cls)}
"""Each key with one class that has it: most keys are those of every stage."""


@pytest.mark.parametrize(("key", "cls"), NUMERIC.items())
def test_no_numeric_key_takes_a_number_without_sense(cls: type[Section], key: str) -> None:
    """NaN, infinity, negative, subnormal and absurd numbers: a message with the key and what it must be."""
    for wrong in WRONG_NUMBERS:
        with pytest.raises(ConfigError) as caught:
            load_config(cls, None, [*LEAST[cls], f"{key}={wrong}"])
        assert re.search(rf"{re.escape(key)}.*must be (at least|at most|above|below|a |from |0|one)", str(caught.value))


@pytest.mark.parametrize(
    ("method", "overrides", "said"),
    [
        ("sft", [f"seed={2**63}"], f"must be below {2**63}; got {2**63} (allowed: 0 to below {2**63})"),
        ("sft", ["optim.lr=1e-320"], "must be at least 1e-12"),
        ("sft", ["optim.lr=11"], "must be at most 10; got 11 (allowed: above 0 to 10)"),
        ("sft", ["optim={steps: 10, warmup: 11}"], "11 steps are longer than the training, 10"),
        ("sft", ["optim={lr: 0.1, weight_decay: 10}"], "10 times lr 0.1 is 1 or more"),
        ("sft", ["threads=100000"], "must be at most 1024; got 100000 (allowed: 1 to 1024)"),
        ("dpo", ["loss={name: kto, desirable_weight: 0, undesirable_weight: 0}"], "so nothing would train"),
        ("dpo", ["loss.beta=1e-320"], "must be from 1e-12 to 1e+09; got 1e-320"),
        ("ppo", ["reward=[r, ./r]"], "reward[1]: ./r is reward[0] again"),
        ("ppo", ["reward=['m.py:f(a=1)', 'm.py:f(a=2)', './m.py:f(a=1)']"], "reward[2]: m.py:f(a=1) is reward[0]"),
        ("ppo", ["rollouts.temperature=1e-9"], "must be at least 0.001; got 1e-09 (allowed: 0.001 to 100)"),
    ],
)
def test_a_number_without_sense_is_refused_with_its_range(method: str, overrides: list[str], said: str) -> None:
    assert said in refusal(method, *overrides)


def test_numbers_with_sense_are_taken() -> None:
    """The ends of ranges, and 0 where it turns something off."""
    assert load_config(SftConfig, None, [*SFT, f"seed={2**63 - 1}"]).seed == 2**63 - 1
    assert load_config(SftConfig, None, [*SFT, "optim={steps: 10, warmup: 10, weight_decay: 0}"]).optim.warmup == 10
    kto = load_config(DpoConfig, None, [*SFT, "loss={name: kto, desirable_weight: 0}"])
    assert kto.loss.params["undesirable_weight"] == 1.0
    assert load_config(PpoConfig, None, [*PPO, "reward=[r, s]"]).rewards == ["r", "s"]


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("capability_drop=1", "must be below 1; got 1 (allowed: 0 to below 1)"),
        ("over_refusal_rise=1", "must be below 1"),
        ("unsafe_compliance_rise=1", "must be below 1"),
        ("win_rate=0", "must be above 0; got 0 (allowed: above 0 to below 1)"),
        ("win_rate=1", "must be below 1"),
        ("forgetting_rise=101", "must be at most 100; got 101 (allowed: 0 to 100)"),
        ("length_growth=64", "always passes: answers have 1 to 64 tokens"),
        ("gold_reward_drop=1e10", "must be at most 1e+09"),
    ],
)
def test_a_gate_that_always_passes_or_never(gate: str, said: str) -> None:
    key, _, value = gate.partition("=")
    with pytest.raises(ConfigError) as caught:
        load_config(
            PipelineConfig,
            None,
            [*PIPELINE, "stages.a.method=sft", f"gates.{key}={value}", "evaluate={gold: g}"],
        )
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("gates", "expected"),
    [
        ("{harness_drop: {arc: 0.1}}", r"gates.harness_drop.arc: cannot run: no task of the harness is named"),
        (
            "{slices: {capability: {maths: 0.1}}}",
            r"gates.slices.capability: is no gate that has slices; did you mean cap",
        ),
        ("{slices: {capability_drop: {maths: 2.0}}}", r"gates.slices.capability_drop.maths: .*less than 1.*got 2.0"),
        ("{slices: {capability_drop: {maths: x}}}", r"gates.slices.capability_drop.maths: .*valid number.*got 'x'"),
        (
            "{slices: {gold_reward_drop: {maths: 1}}}",
            r"gates.slices.gold_reward_drop.maths: cannot run: there is no ind",
        ),
    ],
)
def test_gates_on_slices_are_checked_as_gates_are(gates: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_config(PipelineConfig, None, [*PIPELINE, "stages.a.method=sft", f"gates={gates}"])


def test_a_slip_in_the_name_of_a_task_of_the_harness() -> None:
    """Another name may be a task of a group: mmlu_law of mmlu."""
    settings = [*PIPELINE, "stages.a.method=sft", "evaluate={harness: [arc_easy, mmlu]}"]
    load_config(PipelineConfig, None, [*settings, "gates={harness_drop: {mmlu_law: 0.1, boolq: 0.1, arc_easy: 0.1}}"])
    with pytest.raises(ConfigError, match=r"harness_drop.arc_esy: is not among .* did you mean arc_easy"):
        load_config(PipelineConfig, None, [*settings, "gates={harness_drop: {arc_esy: 0.1}}"])


def test_limits_have_the_slices_behind_the_gates() -> None:
    gates = GatesConfig(capability_drop=0.02, slices={"capability_drop": {"maths": 0.05}}, harness_drop={"arc": 0.1})
    assert gates.limits == {"capability_drop": 0.02, "harness_drop/arc": 0.1, "capability_drop/maths": 0.05}


def test_a_model_whose_name_no_file_system_has_is_no_crash() -> None:
    """It is told where the model is looked for."""
    name = "b" + "[" * 5000
    assert SftConfig.model_validate({"model": name, "data": "d.jsonl", "output": "o"}).model == name
