"""The sections of a stage's configuration, and the rules they share.

Every field's docstring is its help text. A setting without effect given the others (a horizon without a target) is
refused, not ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    StrictBool,
    Tag,
    model_serializer,
    model_validator,
)

from trueup.config.functions import (
    ADVANTAGES,
    ESTIMATORS,
    LOSSES,
    FunctionTable,
    ParameterValue,
    UserFunction,
    functions_as_text,
    load_function,
)
from trueup.config.problems import Problem, as_written, collected, nearest, suggestion
from trueup.system.text import expanded, home_path

SMALLEST, LARGEST = 1e-12, 1e9
"""The range of numbers that can make a difference: a smaller one is 0 to float32's rounding, a larger one a mistake."""
LONGEST = 10**9
"""The largest number of rows, tokens or steps."""


def no_speck(value: float) -> float:
    """Refuse a number so near 0 that it acts as 0, such as 1e-320, where 0 itself is refused."""
    if 0 < value < SMALLEST:
        raise collected([((), f"must be at least {SMALLEST:g}; got {as_written(value)}")])
    return value


def zero_or_more(value: float) -> float:
    """Refuse a number so near 0 that it acts as 0, such as 1e-320, where 0 means "off"."""
    if 0 < value < SMALLEST:
        raise collected([((), f"must be 0, or at least {SMALLEST:g}; got {as_written(value)}")])
    return value


Whole = Annotated[int, Strict(), Field(ge=0, le=LONGEST)]
Count = Annotated[int, Strict(), Field(ge=1, le=LONGEST)]
Threads = Annotated[int, Strict(), Field(ge=1, le=1024)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**63)]
Positive = Annotated[float, Strict(), Field(gt=0, le=LARGEST, allow_inf_nan=False), AfterValidator(no_speck)]
NonNegative = Annotated[float, Strict(), Field(ge=0, le=LARGEST, allow_inf_nan=False), AfterValidator(zero_or_more)]
Fraction = Annotated[float, Strict(), Field(ge=0, le=1), AfterValidator(zero_or_more)]
Share = Annotated[float, Strict(), Field(ge=0, lt=1), AfterValidator(zero_or_more)]
Rate = Annotated[float, Strict(), Field(gt=0, le=10, allow_inf_nan=False), AfterValidator(no_speck)]
GreedyTemperature = Annotated[
    float, Strict(), Field(ge=0, le=100, allow_inf_nan=False), AfterValidator(zero_or_more)
]  # 0 takes the likeliest token
Temperature = Annotated[float, Strict(), Field(ge=1e-3, le=100, allow_inf_nan=False)]


def listed(value: object) -> object:
    """Return a list of one for a single text, as `log: wandb` is written for `log: [wandb]`; all else unchanged."""
    return [value] if isinstance(value, str) else value


NonEmptyStr = Annotated[str, Field(min_length=1)]
PathText = Annotated[NonEmptyStr, AfterValidator(expanded)]
"""A path, or a name or function that stands for one, as text; `~` is the home folder."""
FilePath = Annotated[Path, AfterValidator(lambda path: Path(expanded(str(path))))]
"""The path of a file or folder; `~` is the home folder."""


def model_of_run(name: str) -> str:
    """Return the model that `name` stands for: of a finished run's folder its `model` (or `adapter`), else `name`."""
    folder = home_path(name)
    try:
        if (folder / "config.json").is_file():
            return name
        if (folder / "model" / "config.json").is_file():
            return str(Path(name) / "model")
        is_run = (folder / "config.yaml").is_file() and (folder / "adapter" / "adapter_config.json").is_file()
    except OSError:  # no file system has such a name, e.g. one of 1,000 letters: told where the model is looked for
        return name
    return str(Path(name) / "adapter") if is_run else name


ModelName = Annotated[PathText, AfterValidator(model_of_run)]
"""A model's folder, `.gguf` file or hub name; a run's folder stands for the model in it, which is recorded."""


class Section(BaseModel):
    """Base class of every section of a configuration: unknown keys are refused, and values cannot be changed.

    A field's docstring is its help text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def inert(self) -> dict[str, str]:
        """Return key -> reason and fix, for the keys that have no effect given the other values."""
        return {}

    def contradictions(self) -> list[Problem]:
        """Return a problem for each set of values that are allowed one by one, but not together."""
        return []

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        explicit = [key for key in self.model_fields_set if getattr(self, key) is not None]
        reasons = self.inert()
        problems: list[Problem] = [((key,), f"has no effect: {reasons[key]}") for key in explicit if key in reasons]
        problems += self.contradictions()
        if problems:
            raise collected(problems)
        return self


RowFormat = Literal[
    "auto",
    "conversation",
    "pair",
    "ranking",
    "verdict",
    "prompt",
    "text",
    "comparison",
    "gemini",
    "glaive",
    "helpsteer2",
    "helpsteer3",
    "lmsys-55k",
    "nectar",
    "oasst",
    "openai-preference",
    "ranked-answers",
    "safe-rlhf",
    "safe-rlhf-safety",
    "shp",
    "summarize-feedback",
    "ultrafeedback",
    "webgpt",
    "xlam",
]
"""The formats of rows, described in `trueup.data.sources.formats` and `trueup.data.sources.schemas`."""
SkipKind = Literal[
    "turn-order",
    "unknown-role",
    "no-answer",
    "empty",
    "media",
    "tools",
    "undesirable",
    "untrained",
    "parted",
    "reversed",
    "end-token",
    "template",
]
"""Kinds of rows that `skip` can leave out; the error for such a row names its kind."""


class DataConfig(Section):
    """A source of rows: a file, folder or data set, and how to read it. A bare text stands for `{path: ...}`."""

    path: PathText
    """A .jsonl, .json, .parquet, .csv or .txt file, a store of rankings (.db), or a dataset's name on the hub."""
    use: Literal["auto", "chosen", "prompt", "text"] = "auto"
    """The part of each row to use: all that the stage needs, the chosen answer, the prompt, or plain text."""
    rows: Annotated[str, Field(pattern=r"^\d*:\d*$")] | None = None
    """A slice `start:stop` of the rows, from 0, stop not included. Unset: all."""
    columns: dict[str, str] | None = None
    """Names of fields in the file, where they differ: `{prompt: question}` reads prompt from question."""
    tools: PathText | None = None
    """A JSON file of tools, declared for the rows that have no `tools` of their own."""
    split: NonEmptyStr = "train"
    """The split: of a hub dataset, of a folder whose files are named by it, or of rows with a field `split`."""
    format: RowFormat | None = None
    """How the rows are written: a format of docs/data.md, such as ranking or nectar. Unset: guessed, and said."""
    pairs: Literal["all", "best-worst"] | None = None
    """Of n ranked answers to a prompt: all pairs whose ranks differ, or the best and the worst alone. Unset: all."""
    identical_pairs: Literal["error", "drop"] = "error"
    """Rankings whose chosen and rejected are the same: stop and list them, or leave them out (counted)."""
    skip: list[SkipKind] | None = None
    """Kinds of rows to leave out, counted by line, where they would stop the stage: [turn-order, media]."""
    merge_turns: StrictBool | None = None
    """Join consecutive messages of one role by a blank line. Unset: refuse such rows."""
    ignore: list[NonEmptyStr] | None = None
    """Fields of the file that are not to be read, such as a label that says nothing about the answer: [label]."""

    @model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: object) -> object:
        if type(value) is DataConfig and cls is not DataConfig:  # from Python: a section without weight has weight 1
            return {key: getattr(value, key) for key in value.model_fields_set}
        return {"path": str(value)} if isinstance(value, (str, Path)) else value

    @property
    def span(self) -> tuple[int, int | None]:
        """The range of rows to read, from the setting `rows`: (first, end), where end is None for all the rest."""
        start, _, stop = (self.rows or ":").partition(":")
        return int(start or 0), int(stop) if stop else None

    def contradictions(self) -> list[Problem]:
        """Return a problem if `rows` is an empty range."""
        start, stop = self.span
        if stop is not None and stop <= start:
            return [(("rows",), f"{self.rows} holds no row: stop must be above start")]
        return []


class TrainDataConfig(DataConfig):
    """A source of rows to train on, with its weight and limit. A list of such sources is a mixture."""

    weight: Annotated[float, Strict(), Field(gt=0, le=1000, allow_inf_nan=False), AfterValidator(no_speck)] = 1.0
    """How often each row is used in an epoch: 2 is twice, 0.25 a quarter of the rows, other rows in the next epoch."""
    limit: Count | None = None
    """The largest number of rows, drawn by the seed. Unset: all."""
    holdout: Share = 0.0
    """The share of the rows kept out of training, to measure on as eval.data; near-duplicates go together."""


def _one_or_many(value: object) -> str:
    return MANY if isinstance(value, list) else ONE


ONE, MANY = "one section", "a list of sections"
"""Pydantic's tags of the two forms of `TrainData`; `explain.locate` removes them from a problem's place."""
TrainData = Annotated[
    Annotated[TrainDataConfig, Tag(ONE)] | Annotated[list[TrainDataConfig], Field(min_length=1), Tag(MANY)],
    Discriminator(_one_or_many),
]
Allowed = Literal[
    "missing-template",
    "rewritten-history",
    "doubled-special-tokens",
    "applied-template",
    "special-text",
    "wrong-calls",
    "unknown-answers",
    "empty-response",
    "untrained-end",
    "eval-overlap",
    "other-tokenizer",
    "other-base",
    "rounded-weights",
    "changed-data",
    "pickled-weights",
    "ignored-weights",
    "constant-weights",
]
"""Faults that stop a training unless `allow` names them; described in `trueup.data.tokens.findings`."""
Allows = Annotated[list[Allowed], BeforeValidator(listed)]
AllowedWeights = Literal["pickled-weights", "ignored-weights", "constant-weights"]
"""The words of `Allowed` for models that are only used: measured, or talked to."""


class LoraConfig(Section):
    """Low-rank adapters over a frozen model (Hu et al. 2021, arXiv:2106.09685)."""

    r: Count = 16
    """The rank of each adapter."""
    alpha: Positive = 32.0
    """The adapters are scaled by alpha / r."""
    dropout: Share = 0.0
    """Dropout before each adapter."""
    targets: Literal["all-linear"] | Annotated[list[NonEmptyStr], Field(min_length=1)] = "all-linear"
    """The layers with an adapter: all-linear, or a list of layer names such as [q_proj, v_proj]."""

    @model_validator(mode="before")
    @classmethod
    def _targets_as_list(cls, value: object) -> object:
        """Take a single layer name for a list of one, unless it is a misspelt all-linear."""
        targets = value.get("targets") if isinstance(value, dict) else None
        if isinstance(targets, list) and not (targets and all(isinstance(name, str) and name for name in targets)):
            text = f"must be all-linear, or a list of layer names such as [q_proj, v_proj]; got {as_written(targets)}"
            raise collected([(("targets",), text)])
        if isinstance(value, dict) and isinstance(targets, str) and not nearest(targets, ["all-linear"]):
            return {**value, "targets": [targets]}
        return value


class OptimConfig(Section):
    """The optimizer (AdamW), its schedule, and how long to train."""

    lr: Rate
    """Peak learning rate."""
    epochs: Count = 1
    """Passes over the data. Give epochs or steps."""
    steps: Count | None = None
    """Optimizer steps, instead of epochs."""
    batch_size: Count = 16
    """Examples in one optimizer step. The memory needed depends on max_tokens instead."""
    warmup: NonNegative = 0.05
    """Steps in which the learning rate rises; a number below 1 is a fraction of all steps."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """The learning rate after the warmup: falls to 0 along a cosine or a line, or stays constant."""
    weight_decay: NonNegative = 0.0
    """AdamW's decoupled weight decay."""
    clip: Positive = 1.0
    """The gradient's largest norm."""
    bad_steps: Count = 3
    """Stop after this many steps in a row with a loss or gradient that is not finite; each is skipped and reported."""

    def inert(self) -> dict[str, str]:
        """Return the keys without effect, as key -> reason: `epochs` if `steps` is set."""
        return {} if self.steps is None else {"epochs": "optim.steps decides the length; give one of the two"}

    def contradictions(self) -> list[Problem]:
        """Return the problems of a warm-up that is no number of steps or too long, and of a decay beyond all weight."""
        problems: list[Problem] = []
        if self.warmup > 1 and self.warmup != int(self.warmup):
            text = f"{self.warmup} is neither a fraction below 1 nor a whole number of steps"
            problems.append((("warmup",), text))
        if self.steps is not None and (text := self.warmup_problem(self.steps)):
            problems.append((("warmup",), text))
        if self.lr * self.weight_decay >= 1:
            text = f"{self.weight_decay:g} times lr {self.lr:g} is 1 or more: each step would turn the weights around"
            problems.append((("weight_decay",), text))
        return problems

    def warmup_problem(self, steps: int) -> str | None:
        """Return what is wrong with `warmup` in a training of `steps` steps, as a message; None if it fits."""
        if self.warmup < 1 or self.warmup <= steps:
            return None
        text = f"{self.warmup:g} steps are longer than the training, {steps}: the rate would never be reached"
        return f"{text}; set 0 to {steps} steps, or a fraction below 1"


class EvalConfig(Section):
    """Measurements on held-out rows during training."""

    data: DataConfig | None = None
    """Held-out rows of the same kind as the training data."""
    every: Count | None = None
    """Optimizer steps between two measurements. Unset: measure only at the end."""
    patience: Count | None = None
    """Stop after this many measurements without a better one. Unset: never."""

    def inert(self) -> dict[str, str]:
        """Return the keys without effect, as key -> reason: `patience` if nothing is measured during training."""
        return {} if self.every else {"patience": "it counts measurements; set eval.every"}


class MixConfig(Section):
    """SFT rows trained together with the stage's own, against forgetting and the alignment tax (PPO-ptx)."""

    data: DataConfig
    """Conversations, or plain text (`use: text`)."""
    weight: Positive = 0.1
    """The weight of their loss; the stage's own loss has weight 1."""
    batch_size: Count | None = None
    """Mixed-in rows in one optimizer step. Unset: as optim.batch_size."""


class SaveConfig(Section):
    """Checkpoints to resume from. One is always kept at the end and on Ctrl-C."""

    every: Count | None = None
    """Optimizer steps between two checkpoints. Unset: save only at the end."""
    keep_last: Count = 2
    """The number of checkpoints to keep."""
    keep_best: StrictBool = False
    """Also save at each measurement that is the best so far, and keep that checkpoint."""


class RewardLossConfig(Section):
    """The reward model's loss: -log sigmoid(chosen - rejected)."""

    center: NonNegative = 0.0
    """Weight of a term that holds the rewards' mean at 0 (Eisenstein et al. 2023, arXiv:2312.09244)."""
    margin: StrictBool = False
    """Subtract each row's `margin`, how much better chosen is (Llama 2, arXiv:2307.09288, eq. 2)."""


class FunctionConfig(Section):
    """A function's name, or `file.py:function`, with its parameters: `{name: simpo, beta: 2.0, gamma: 0.5}`."""

    table: ClassVar[FunctionTable]
    default: ClassVar[str]
    aliases: ClassVar[Mapping[str, str]] = {}
    """Other names of functions of ours."""

    name: str = ""
    """The function: a name of ours, or file.py:function."""
    params: dict[str, ParameterValue] = Field(default_factory=dict)
    """Its parameters, all of them; the ones not given have the function's defaults."""

    @model_validator(mode="before")
    @classmethod
    def _bind(cls, value: object) -> object:
        if not isinstance(value, dict) or not isinstance(value.get("params", {}), dict):
            return value
        if isinstance(name := value.get("name"), str):
            value = {**value, "name": cls.own_name(name)}
        return cls.table.bind(value, cls.default)

    @classmethod
    def own_name(cls, name: str) -> str:
        """Return the name of a function of ours for another spelling of it (DPO, IPO); any other text as it is."""
        lower = cls.aliases.get(name.lower(), name.lower())
        return lower if lower in cls.table.ours() else name

    def function(self, ours: Mapping[str, Callable[..., Any]], key: str) -> Callable[..., Any]:
        """Return the function that the section names, with its parameters bound.

        Args:
            ours: name -> function, for trueup's own functions.
            key: the configuration key of the section, for messages.

        Raises:
            ConfigError: the user's file or function cannot be used; the message names `key`.
        """
        function = ours.get(self.name) or load_function(self.name, key, takes=(self.table.takes,))
        return partial(function, **self.params)


class PreferenceLossConfig(FunctionConfig):
    """The preference loss of DPO and its relatives, with its parameters: `{name: simpo, beta: 2.0, gamma: 0.5}`."""

    table: ClassVar[FunctionTable] = LOSSES
    default: ClassVar[str] = "sigmoid"
    aliases: ClassVar[Mapping[str, str]] = {"dpo": "sigmoid"}

    name: str = "sigmoid"
    """The loss: a function of algorithms/preference.py, or file.py:function."""

    @property
    def needs_reference(self) -> bool:
        """True if the loss uses log-probabilities under a reference model."""
        return self.table.marked("NEEDS_REFERENCE", self.name)

    @property
    def unpaired(self) -> bool:
        """True if the loss learns from single completions labelled good or bad (as KTO does) instead of pairs."""
        return self.table.marked("UNPAIRED", self.name)

    def contradictions(self) -> list[Problem]:
        """Return a problem if both weights of KTO are 0, so that nothing would train."""
        weights = [key for key in ("desirable_weight", "undesirable_weight") if key in self.params]
        if self.name in self.table.ours() and weights and not any(self.params[key] for key in weights):
            text = f"{' and '.join(weights)} are 0, so nothing would train; set one of them above 0"
            return [((weights[0],), text)]
        return []

    @model_serializer
    def _flat(self) -> dict[str, str | ParameterValue]:
        return {"name": self.name, **self.params}


class ShortFunctionConfig(FunctionConfig):
    """A function with parameters, for which its name alone may be written: `grpo` stands for `{name: grpo}`."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        ours, value = cls.table.ours(), cls.own_name(value)
        if value not in ours and UserFunction.parse(value) is None:
            text = f"must be one of {', '.join(ours)}; got {as_written(value)}{suggestion(value, ours)}"
            raise collected([((), f"{text} (or a function of yours: file.py:function)")])
        return cls.table.bind({"name": value}, cls.default)

    @model_serializer
    def _short(self) -> str | dict[str, str | ParameterValue]:
        # The name alone where it says all: so earlier versions wrote it.
        plain = self.params == self.table.ours().get(self.name)
        return self.name if plain else {"name": self.name, **self.params}


class AdvantageConfig(ShortFunctionConfig):
    """The advantage function for policy gradients, with its parameters: `grpo`, or `{name: grpo, scale: false}`."""

    table: ClassVar[FunctionTable] = ADVANTAGES
    default: ClassVar[str] = "gae"

    name: str = "gae"
    """The advantage: a function of algorithms/advantages.py, or file.py:function."""

    @property
    def needs_values(self) -> bool:
        """True if the advantage needs a value head, which is then trained."""
        return self.table.marked("NEEDS_VALUES", self.name)

    @property
    def needs_groups(self) -> bool:
        """True if the advantage compares several responses to one prompt, as GRPO does."""
        return self.table.marked("NEEDS_GROUPS", self.name)


class EstimatorConfig(ShortFunctionConfig):
    """The estimator of the KL from the reference model, with its parameters, if it has any."""

    table: ClassVar[FunctionTable] = ESTIMATORS
    default: ClassVar[str] = "k1"

    name: str = "k1"
    """The estimator: a function of algorithms/kl.py, or file.py:function."""


class WatchConfig(Section):
    """The reward-hacking watch: warnings of reward hacking and drift at each measurement on eval.data.

    They are printed and written to alarms.jsonl in the run folder.
    """

    gold: PathText | None = None
    """An independent reward that is never trained on: a reward run's folder, a classifier, or file.py:function."""
    stop: Literal["never", "best-gold"] = "never"
    """best-gold: end once the gold reward has clearly fallen (or by eval.patience); keep its best weights."""

    @model_validator(mode="before")
    @classmethod
    def _with_settings(cls, value: object) -> object:
        return functions_as_text(value, ("gold", "reward"), columns=True)

    def inert(self) -> dict[str, str]:
        """Return the keys without effect, as key -> reason: `stop` if there is no gold reward to stop by."""
        return {} if self.gold else {"stop": "there is no gold reward to stop by; set watch.gold"}


class DpoWatchConfig(WatchConfig):
    """DPO's watch: warnings of drift (and, with a gold reward, of reward hacking) at each measurement on eval.data.

    They are printed and written to alarms.jsonl in the run folder.
    """

    reward: PathText | None = None
    """A reward model to follow, although DPO does not optimize it: the report's reward against KL."""
    samples: Whole = 32
    """The number of held-out prompts answered at each measurement, for KL, length and repetition."""
    max_new_tokens: Count = 64
    """The longest of these answers in tokens."""

    def inert(self) -> dict[str, str]:
        """Return the keys without effect, as key -> reason: those for sampled answers if none are sampled."""
        unheard = dict.fromkeys(("gold", "reward", "max_new_tokens"), "no answers are sampled: watch.samples is 0")
        return WatchConfig.inert(self) | ({} if self.samples else unheard)


class KlConfig(Section):
    """PPO's penalty on the KL of the policy from its reference, the model that training starts from."""

    coef: NonNegative = 0.05
    """The penalty's coefficient; with a target, its first value."""
    target: Positive | None = None
    """Aim at this KL in nats per response by adapting the coefficient (Ziegler et al. 2019). Unset: fixed."""
    horizon: Count = 10_000
    """Episodes over which the coefficient adapts."""
    apply: Literal["reward", "loss"] = "reward"
    """Subtract the penalty from the reward of each token (with k1), or add it to the loss (with k2 or k3)."""
    estimator: EstimatorConfig = Field(default_factory=lambda: EstimatorConfig.model_validate("k1"))
    """The KL estimator (Schulman 2020): k1 in the reward; in the loss k2, with the KL's gradient, or k3, near it."""
    logged: EstimatorConfig | None = None
    """A second estimator, only logged (ppo/kl_logged, nats per response; ppo/kl is always k1). Unset: none."""

    @model_validator(mode="before")
    @classmethod
    def _estimator_of_the_loss(cls, value: object) -> object:
        """Set the estimator to k2 where the penalty is a loss and none is named."""
        if isinstance(value, dict) and value.get("apply") == "loss":
            return {"estimator": "k2", **value}
        return value

    def inert(self) -> dict[str, str]:
        """Return the keys without effect, as key -> reason: `horizon` if the KL coefficient does not adapt."""
        return {} if self.target else {"horizon": "it is for the adaptive penalty; set kl.target or leave horizon out"}

    def contradictions(self) -> list[Problem]:
        """Return the problems of an estimator in the wrong place, and of a coefficient of 0 that should adapt."""
        problems: list[Problem] = []
        name = self.estimator.name
        if self.apply == "reward" and name in ("k2", "k3"):
            text = (
                f"{name} in the reward loses nearly all of the penalty's gradient (arXiv:2512.21852); "
                f"use kl.estimator=k1, or kl.apply=loss with {name}; to only log {name}: kl.logged={name}"
            )
            problems.append((("estimator",), text))
        if self.apply == "loss" and name == "k1":
            text = "k1 as a loss has a mean gradient of zero, so it holds nothing; use k2 or k3, or kl.apply=reward"
            problems.append((("estimator",), text))
        if self.target and not self.coef:
            text = "0 cannot be adapted: it is multiplied; start above 0, or leave out kl.target"
            problems.append((("coef",), text))
        return problems


class RolloutConfig(Section):
    """Sampling and the PPO objective (Schulman et al. 2017, arXiv:1707.06347)."""

    episodes: Count = 64
    """Responses sampled before each round of updates."""
    per_prompt: Count = 1
    """Responses to each prompt; rloo and grpo compare them, and need at least 2."""
    epochs: Count = 4
    """Passes over each round's responses."""
    max_new_tokens: Count = 128
    """The longest response in tokens."""
    temperature: Temperature = 1.0
    """The sampling temperature."""
    advantage: AdvantageConfig = Field(default_factory=lambda: AdvantageConfig.model_validate("gae"))
    """gae learns a value head; rloo and grpo compare the responses to one prompt instead. Or {name: …, parameters}."""
    gamma: Fraction = 1.0
    """Discount per token (gae)."""
    lam: Fraction = 0.95
    """GAE's lambda (arXiv:1506.02438)."""
    clip: Annotated[float, Strict(), Field(gt=0, lt=1), AfterValidator(no_speck)] = 0.2
    """The probability ratio is clipped to 1 - clip … 1 + clip."""
    dual_clip: Annotated[float, Strict(), Field(gt=1, le=LARGEST, allow_inf_nan=False)] | None = None
    """Where the advantage is negative the ratio counts as this at most, such as 3 (arXiv:1912.09729). Unset: off."""
    value_clip: Positive = 0.2
    """The largest change of a value estimate in one round."""
    value_coef: NonNegative = 0.1
    """Weight of the value loss."""
    entropy_coef: NonNegative = 0.0
    """Weight of the entropy bonus."""
    whiten: StrictBool = True
    """Scale the advantages to mean 0 and deviation 1 in each round."""
    missing_end_penalty: NonNegative = 1.0
    """Subtracted from the reward of a response that does not end by itself."""
    length_penalty: NonNegative = 0.0
    """Subtracted from the reward for each token of the response: against rewards that like long answers."""
    uncertainty: NonNegative = 0.0
    """With several rewards: the weight of their variance against their mean (Coste et al. 2023, arXiv:2310.02743)."""
    normalize_reward: StrictBool = False
    """Scale rewards by their running deviation."""

    @model_validator(mode="before")
    @classmethod
    def _gae_parameters(cls, value: object) -> object:
        """Move gae's `gamma` and `lam`, if written next to the advantage's name, to keys of `rollouts` itself."""
        advantage = value.get("advantage") if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(advantage, dict) or advantage.get("name", "gae") != "gae":
            return value
        inner = {key: item for key, item in advantage.items() if key in ("gamma", "lam")}
        if twice := sorted(inner.keys() & value.keys()):
            raise collected([(("advantage", key), f"stands in rollouts.{key} too; remove one") for key in twice])
        rest = {key: item for key, item in advantage.items() if key not in inner}
        return {**value, "advantage": rest, **inner}

    def advantage_function(self, ours: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
        """Return the advantage function with its parameters bound; those of gae are keys of the `rollouts` section."""
        function = self.advantage.function(ours, "rollouts.advantage")
        return partial(function, gamma=self.gamma, lam=self.lam) if self.advantage.name == "gae" else function

    def inert(self) -> dict[str, str]:
        """Return the keys without effect, as key -> reason: e.g. `lam` (for gae only) with another advantage."""
        name = self.advantage.name
        reason = f"it is for advantage: gae; {name} has no value head. Leave it out"
        reasons: dict[str, str] = {}
        if not self.advantage.needs_values:
            reasons |= dict.fromkeys(("value_clip", "value_coef"), reason)
        if name != "gae":
            if self.advantage.needs_values:
                reason = f"it is for advantage: gae; give it to the function: advantage: {{name: {name}, …}}"
            reasons |= dict.fromkeys(("gamma", "lam"), reason)
        return reasons

    def contradictions(self) -> list[Problem]:
        """Return the problems of groups: a single response per group, or responses that do not divide into groups."""
        if self.advantage.needs_groups and self.per_prompt < 2:
            text = f"{self.advantage.name} compares the responses to one prompt: set per_prompt to 2 or more"
            return [(("per_prompt",), text)]
        if self.episodes % self.per_prompt:
            return [(("episodes",), f"{self.episodes} is not a multiple of per_prompt, {self.per_prompt}")]
        return []
