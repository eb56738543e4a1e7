"""The configuration of each training stage: one pydantic model per stage.

Nothing here reads a file or imports torch; of a model's folder it only sees whether it is a run's. `load.py` turns YAML
and `key.sub=value` overrides into these models.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, ModelWrapValidatorHandler, Strict, StrictBool, model_validator

from trueup.config.functions import UserFunction, functions_as_text
from trueup.config.problems import Place, Problem
from trueup.config.sections import (
    LONGEST,
    Allows,
    Count,
    DataConfig,
    DpoWatchConfig,
    EvalConfig,
    FilePath,
    KlConfig,
    LoraConfig,
    MixConfig,
    ModelName,
    OptimConfig,
    PathText,
    PreferenceLossConfig,
    RewardLossConfig,
    RolloutConfig,
    SaveConfig,
    Section,
    Seed,
    Threads,
    TrainData,
    TrainDataConfig,
    WatchConfig,
    listed,
)
from trueup.system.text import home_path

Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
TrainDtype = Literal["auto", "float32", "bfloat16"]
"""The types to train in: float16's gradients vanish without loss scaling, which is not done."""
Strategy = Literal["auto", "ddp", "fsdp"]
Tracker = Literal["tensorboard", "wandb", "trackio"]
TEMPLATE_NAMES = ("chatml", "chatml-tools")
"""The chat templates that trueup has, by the names that `chat_template` takes."""


class StageConfig(Section):
    """The keys that every training stage has (sft, reward, dpo, ppo)."""

    method: ClassVar[str] = ""
    lr: ClassVar[float] = 1e-5
    """The default learning rate where every weight trains."""
    lora_lr: ClassVar[float] = 1e-4
    """The default learning rate with `lora`."""
    data_fields: ClassVar[tuple[str, ...]] = ("data",)

    model: ModelName
    """The model to start from: a folder, a run's folder, a .gguf file, or a name on the Hugging Face hub."""
    chat_template: PathText | None = None
    """A chat template instead of the model's: a file, chatml or chatml-tools. It is exported with the model."""
    template: dict[str, JsonValue] | None = None
    """Variables for the chat template, e.g. `{enable_thinking: false}`; the exported one has them as defaults."""
    train_thinking: StrictBool | None = None
    """Train the thoughts before answers. Unset: they are trained; false: only the answers are."""
    output: FilePath
    """The run folder: configuration, log, checkpoints and the trained model go there."""
    lora: LoraConfig | None = None
    """Train adapters only. Unset: train every weight."""
    model_dropout: StrictBool | None = None
    """Train with the dropout and router noise that the model's own configuration asks for. Unset: without."""
    optim: OptimConfig = OptimConfig(lr=1e-5)
    """The optimizer and how long to train."""
    max_length: Annotated[int, Strict(), Field(ge=2, le=LONGEST)] = 1024
    """The longest row in tokens, prompt and answer together."""
    over_length: Literal["error", "drop", "cut"] = "error"
    """Treatment of longer rows: stop and list them, leave them out, or cut their end."""
    allow: Allows = Field(default_factory=list)
    """Faults of data or model to allow, by the names that `trueup check` prints; all others stop the training."""
    max_tokens: Count = 4096
    """Tokens computed at once (sampled: four times as many): lower it when memory runs out. It changes no result."""
    seed: Seed = 0
    """The seed of every random number."""
    eval: EvalConfig = EvalConfig()
    """Measurements on held-out rows during training."""
    mix: MixConfig | None = None
    """SFT rows trained together with the stage's own."""
    save: SaveConfig = SaveConfig()
    """Checkpoints."""
    log: Annotated[list[Tracker], BeforeValidator(listed)] = Field(default_factory=list)
    """Trackers to log to, in addition to metrics.jsonl: tensorboard, wandb, trackio."""
    device: Device = "auto"
    """auto (the GPU when there is one), cpu, mps, cuda or cuda:1."""
    dtype: TrainDtype = "auto"
    """The type of computation; auto: bfloat16 on a GPU that has it, else float32."""
    strategy: Strategy = "auto"
    """How several processes (torchrun) share the work: ddp (auto), or fsdp, where each holds a part of every weight."""
    threads: Threads | None = None
    """CPU threads. Unset: torch decides."""
    gradient_checkpointing: StrictBool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    trust_remote_code: StrictBool = False
    """Run Python code that comes with the model. Only for models whose authors you trust."""

    @property
    def data_sections(self) -> list[tuple[Place, DataConfig]]:
        """All data sections with their paths of keys: the training data, then eval.data and mix.data if set."""
        sections: list[tuple[Place, DataConfig]] = []
        for key in self.data_fields:
            value: TrainDataConfig | list[TrainDataConfig] = getattr(self, key)
            if isinstance(value, list):
                sections += [((key, index), section) for index, section in enumerate(value)]
            else:
                sections.append(((key,), value))
        sections += [(("eval", "data"), self.eval.data)] if self.eval.data else []
        return sections + ([(("mix", "data"), self.mix.data)] if self.mix else [])

    @property
    def train_sections(self) -> list[TrainDataConfig]:
        """The data sections whose rows are trained on, those of mix.data included."""
        return [section for _, section in self.data_sections if isinstance(section, TrainDataConfig)]

    @property
    def measures(self) -> bool:
        """True if there are held-out rows: eval.data, or a held-out share of the training data."""
        return self.eval.data is not None or any(section.holdout for section in self.train_sections)

    def contradictions(self) -> list[Problem]:
        """Return problems of held-out rows: eval.every or save.keep_best without any, or rows from two sources."""
        problems: list[Problem] = []
        if self.eval.every and not self.measures:
            text = "has no effect: there is nothing to measure on; set eval.data, or holdout in the data section"
            problems.append((("eval", "every"), text))
        if self.save.keep_best and not self.measures:
            text = "has no effect: there is nothing to measure on; set eval.data, or holdout in the data section"
            problems.append((("save", "keep_best"), text))
        if self.eval.data is not None and any(section.holdout for section in self.train_sections):
            text = "held-out rows come from here and from a holdout of the training data; remove one of the two"
            problems.append((("eval", "data"), text))
        return problems

    @classmethod
    def default_lr(cls, *, lora: bool) -> float:
        """Return the learning rate of a configuration that gives none; it depends on stage and `lora`.

        Adapters need about ten times the rate of full fine-tuning, nearly independently of their rank (Schulman et al.
        2025, "LoRA without regret"). The values are measured: docs/decisions.md, "Default learning rates".
        """
        return cls.lora_lr if lora else cls.lr

    @property
    def gives_lr(self) -> bool:
        """True if `optim.lr` was given, not filled in with the default."""
        return "lr" in self.optim.model_fields_set

    @model_validator(mode="wrap")
    @classmethod
    def _own_learning_rate(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Set `optim.lr` to the default of stage and `lora` where it is not given, and keep that it was not."""
        if not isinstance(value, dict) or not isinstance(optim := value.get("optim", {}), dict) or "lr" in optim:
            return handler(value)
        filled = {"lr": cls.default_lr(lora=value.get("lora") is not None), **optim}
        config = handler({**value, "optim": filled})
        config.optim.model_fields_set.discard("lr")
        return config


class SftConfig(StageConfig):
    """Supervised fine-tuning on instructions and answers, or on plain text."""

    method: ClassVar[str] = "sft"
    lr: ClassVar[float] = 2e-5
    lora_lr: ClassVar[float] = 2e-4

    data: TrainData
    """Conversations or prompt-answer rows; rankings with `use: chosen`; documents with `use: text`."""


class RewardConfig(StageConfig):
    """A reward model from rankings A > B."""

    method: ClassVar[str] = "reward"
    lr: ClassVar[float] = 3e-5
    lora_lr: ClassVar[float] = 3e-4

    data: TrainData
    """Rankings: prompt, chosen, rejected."""
    loss: RewardLossConfig = RewardLossConfig()
    """The loss."""


class DpoConfig(StageConfig):
    """Direct preference optimisation on rankings A > B, and its relatives."""

    method: ClassVar[str] = "dpo"
    lr: ClassVar[float] = 2e-5
    lora_lr: ClassVar[float] = 1e-4

    data: TrainData
    """Rankings: prompt, chosen, rejected; for kto also prompt, completion, label."""
    loss: PreferenceLossConfig = Field(default_factory=lambda: PreferenceLossConfig.model_validate({}))
    """The loss and its parameters."""
    reference: ModelName | None = None
    """The model the policy is held to. Unset: the model it starts from."""
    watch: DpoWatchConfig = DpoWatchConfig()
    """Watching for drift on held-out rankings and their prompts."""

    def contradictions(self) -> list[Problem]:
        """Return the problems of every stage, and `watch.stop` without measurements during training."""
        return super().contradictions() + _stop_problems(self)

    def inert(self) -> dict[str, str]:
        """Return the keys without effect, as key -> reason.

        These are `reference` if the loss uses no reference model, and `watch` if there are no held-out rows to measure
        on.
        """
        used = self.loss.needs_reference
        reasons = {} if used else {"reference": f"{self.loss.name} compares with no reference; leave it out"}
        return reasons | _unwatched(self)


class PpoConfig(StageConfig):
    """Reinforcement learning from a reward: PPO with a KL penalty, or RLOO, or GRPO."""

    method: ClassVar[str] = "ppo"
    lr: ClassVar[float] = 1e-5
    lora_lr: ClassVar[float] = 1e-4
    data_fields: ClassVar[tuple[str, ...]] = ("prompts",)

    prompts: TrainData
    """Prompts to answer; of rankings or conversations, their prompts."""
    reward: PathText | Annotated[list[PathText], Field(min_length=1)]
    """A reward run's folder, a sequence-classification model, file.py:function, or a list of these: an ensemble."""
    kl: KlConfig = KlConfig()
    """The KL penalty."""
    rollouts: RolloutConfig = RolloutConfig()
    """Sampling and the objective."""
    watch: WatchConfig = WatchConfig()
    """Watching for reward hacking on the held-out prompts of eval.data."""

    @model_validator(mode="before")
    @classmethod
    def _with_settings(cls, value: object) -> object:
        return functions_as_text(value, ("reward",), columns=True)

    @property
    def rewards(self) -> list[str]:
        """The values of `reward` as a list, which has one item where `reward` is a single text."""
        return [self.reward] if isinstance(self.reward, str) else self.reward

    def inert(self) -> dict[str, str]:
        """Return the keys without effect, as key -> reason: `watch` if there are no held-out prompts to measure on."""
        return _unwatched(self)

    def contradictions(self) -> list[Problem]:
        """Return problems of values that cannot work together: batch sizes, lengths, `uncertainty` with one reward."""
        problems = super().contradictions() + _stop_problems(self)
        if self.rollouts.uncertainty and len(self.rewards) < 2:
            text = "the variance of one reward is 0; give reward a list of two or more, or leave this out"
            problems.append((("rollouts", "uncertainty"), text))
        for index, source in enumerate(self.rewards):
            if (first := [_source(reward) for reward in self.rewards].index(_source(source))) < index:
                text = f"{source} is reward[{first}] again, and one model twice disagrees on nothing; name it once"
                problems.append((("reward", index), text))
        if self.optim.batch_size > self.rollouts.episodes:
            text = f"{self.optim.batch_size} is more than rollouts.episodes, {self.rollouts.episodes}: lower it"
            problems.append((("optim", "batch_size"), text))
        if self.rollouts.max_new_tokens >= self.max_length:
            text = f"leaves no room for a prompt: max_length={self.max_length} is for prompt and response; raise it"
            problems.append((("rollouts", "max_new_tokens"), text))
        return problems


def _source(reward: str) -> str:
    """Return a reward's source in one form, to find one that is named twice: a run folder is its model."""
    if function := UserFunction.parse(reward):
        return replace(function, file=home_path(function.file).resolve()).spec
    path = home_path(reward)
    with suppress(OSError):  # of a name that is too long for a folder
        path = path / "model" if (path / "model").is_dir() else path
    return str(path.resolve())


def _unwatched(config: DpoConfig | PpoConfig) -> dict[str, str]:
    """Return `watch` -> reason if a stage has no held-out rows, so that there are no measurements to watch; else {}."""
    return {} if config.measures else {"watch": "it watches the measurements on held-out rows; set eval.data"}


def _stop_problems(config: DpoConfig | PpoConfig) -> list[Problem]:
    """Return a problem if `watch.stop` is set but nothing is measured during training (eval.every is unset)."""
    if config.watch.stop == "never" or config.eval.every:
        return []
    return [(("watch", "stop"), "it compares one measurement with the next; set eval.every")]


STAGES: dict[str, type[StageConfig]] = {cls.method: cls for cls in (SftConfig, RewardConfig, DpoConfig, PpoConfig)}
