"""The configuration of a pipeline: a file of stages, each resolved into its method's own configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BeforeValidator,
    Field,
    JsonValue,
    ModelWrapValidatorHandler,
    StrictBool,
    ValidationError,
    model_validator,
)

from trueup.config.evaluation import EvaluateConfig, Gates, gate_problems, limits_by_name
from trueup.config.explain import explain, keys_of, other_tools_key, unknown_key
from trueup.config.functions import function_text
from trueup.config.problems import Place, Problem, as_written, collected, nearest, suggestion
from trueup.config.schema import (
    STAGES,
    Device,
    PpoConfig,
    RewardConfig,
    SftConfig,
    StageConfig,
    Strategy,
    TrainDtype,
)
from trueup.config.sections import (
    Allowed,
    FilePath,
    LoraConfig,
    ModelName,
    PathText,
    Section,
    Seed,
    Threads,
    listed,
)
from trueup.errors import ConfigError

SHARED = (
    "lora", "chat_template", "template", "train_thinking", "allow", "seed", "device", "dtype", "threads", "strategy",
)  # fmt: skip
"""Pipeline keys that are every stage's default."""

LINKS = ("method", "from")
"""Keys of a stage in a pipeline that are not keys of its configuration."""

OfGates = Literal["underpowered-gate"]
"""The words of a pipeline's `allow` that are about its gates, not its stages."""

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


class PipelineConfig(Section):
    """A pipeline: stages in order, each from the base model or from an earlier stage."""

    name: Annotated[str, Field(pattern=_NAME.pattern)]
    """The pipeline's name; its run folder is runs/name."""
    base: ModelName
    """The base model: a folder, a .gguf file, or a name on the Hugging Face hub."""
    runs: FilePath = Path("runs")
    """The folder that run folders are made in."""
    data: PathText | None = None
    """The path of every data section without one."""
    lora: LoraConfig | None = None
    """Adapters for every stage; a stage's own `lora` replaces it, `lora: null` turns it off."""
    chat_template: PathText | None = None
    """A chat template for every stage and the report, instead of the base's: a file, chatml or chatml-tools."""
    template: dict[str, JsonValue] | None = None
    """Variables for the chat template in every stage and the report, e.g. `{enable_thinking: false}`."""
    train_thinking: StrictBool | None = None
    """Train the thoughts before answers, in every stage. Unset: they are trained."""
    allow: Annotated[list[Allowed | OfGates], BeforeValidator(listed)] = Field(default_factory=list)
    """Faults of data or models that are allowed in every stage (its own `allow` replaces it); underpowered-gate."""
    seed: Seed = 0
    """The stages' seed."""
    device: Device = "auto"
    """The stages' device."""
    strategy: Strategy = "auto"
    """How several processes share the stages' work: ddp (auto) or fsdp."""
    dtype: TrainDtype = "auto"
    """The stages' dtype."""
    threads: Threads | None = None
    """The stages' CPU threads."""
    stages: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """Name to stage: `method`, `from` (an earlier stage; unset: the base), and the keys of the method."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """The report at the end."""
    gates: Gates | None = None
    """Limits of the trained models, or default: they decide SHIP, HOLD or NOT SHOWN, and the exit code."""

    @property
    def folder(self) -> Path:
        """The pipeline's run folder, `<runs>/<name>`, in which each stage has its own run folder."""
        return self.runs / self.name

    def stage(self, name: str) -> tuple[str, StageConfig]:
        """Return the method (such as "sft") and the complete configuration of the stage `name`.

        Names of earlier stages become paths: `from` becomes `<run folder>/<stage>/model`, and a `reward` that names a
        stage becomes that stage's run folder.
        """
        cls, values = _resolve(dict(self), name, self.folder)
        try:
            return cls.method, cls.model_validate(values)
        except ValidationError as error:
            lines = [f"stages.{name}: {place}: {text}" for place, text in explain(cls, error)]
            raise ConfigError("\n".join(lines)) from None

    def upstream(self, name: str) -> set[str]:
        """Return the names of the stages whose models a stage uses: to start from, as rewards, or in its watch."""
        raw = self.stages[name]
        return {raw.get("from"), *(reward for _, reward in _reward_links(raw))} & set(self.stages)

    @property
    def proxy(self) -> str | None:
        """The proxy reward, which scores answers in the report; None where there is none.

        It is `evaluate.reward`, else the reward that PPO optimizes, else the last reward stage.
        """
        if self.evaluate.reward is not None:
            return self.evaluate.reward
        ppo = [raw for raw in self.stages.values() if raw.get("method") == PpoConfig.method]
        optimized = [raw.get("reward") for raw in ppo]
        named = [
            function_text(reward[0] if isinstance(reward, list) and reward else reward, columns=True)
            for reward in optimized
        ]
        named += [name for name, raw in reversed(self.stages.items()) if raw.get("method") == "reward"]
        return next((name for name in named if isinstance(name, str) and name != self.evaluate.gold), None)

    @property
    def against(self) -> str:
        """The stage (or "base") that the others are compared with: `evaluate.against`, else the first SFT stage."""
        sft = (name for name, raw in self.stages.items() if raw.get("method") == SftConfig.method)
        return self.evaluate.against or next(sft, "base")

    @property
    def candidates(self) -> list[str]:
        """The names of the stages whose models might be shipped."""
        trained = [name for name, raw in self.stages.items() if raw.get("method") != RewardConfig.method]
        return judged_models(["base", *(name for name in trained if name != "base")], self.against)

    @model_validator(mode="wrap")
    @classmethod
    def _check_stages(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Validate the pipeline and all its stages, and raise the problems of both in one error."""
        if not isinstance(value, dict):
            return handler(value)
        value = _with_data_path(value)
        problems: list[Problem] = []
        result: Self | None = None
        try:
            result = handler(value)
        except ValidationError as error:
            problems = [_mended(problem, value) for problem in explain(cls, error)]
        if result is not None and result.gates is not None:
            problems += gate_problems(result.evaluate, result.gates, result.proxy)
        faulty = {place[0] for place, _ in problems if place}
        if isinstance(value.get("stages"), dict):
            usable = {key: item for key, item in value.items() if key not in faulty}
            problems += _stage_problems(usable | {"stages": value["stages"]})
            problems += _evaluate_problems(value)
        if result is None or problems:
            raise collected(dict(reversed(problems)).items())
        return result


def _with_data_path(value: dict[str, Any]) -> dict[str, Any]:
    """Return the pipeline with its `data` as the path of evaluate.data and evaluate.prompts if these have none."""
    evaluate = value.get("evaluate")
    if not isinstance(evaluate, dict):
        return value
    filled = {key: _with_path(item, value.get("data")) for key, item in evaluate.items() if key in ("data", "prompts")}
    return {**value, "evaluate": {**evaluate, **filled}}


def _evaluate_problems(pipeline: dict[str, Any]) -> Iterator[Problem]:
    """Yield a problem for each stage that `evaluate` or `gates` names and that is missing or has the wrong method."""
    stages = {name: raw.get("method") for name, raw in pipeline["stages"].items() if isinstance(raw, dict)}
    writers = ["base", *(name for name, method in stages.items() if method != "reward" and name != "base")]
    evaluate, gates = (_section(pipeline, key) for key in ("evaluate", "gates"))
    against = evaluate.get("against") or next((name for name, method in stages.items() if method == "sft"), "base")
    if against not in writers:
        yield (
            ("evaluate", "against"),
            f"{as_written(against)} is no stage that trains a language model{_or(against, writers)}",
        )
    for key in ("reward", "gold"):
        named = evaluate.get(key)
        if isinstance(named, str) and stages.get(named, "reward") != "reward":
            text = f"{named} is no reward model: its method is {stages[named]}"
            yield ("evaluate", key), text
    judged = judged_models(writers, str(against))
    if gates and not judged:
        yield ("gates",), f"there is no model to judge: no stage comes after {against}, with which models are compared"
    elif gates.get("model") is not None and gates["model"] not in judged:
        yield ("gates", "model"), f"{as_written(gates['model'])} is not judged{_or(gates['model'], judged)}"


def _section(pipeline: dict[str, Any], key: str) -> dict[str, Any]:
    section = limits_by_name(pipeline.get(key)) if key == "gates" else pipeline.get(key)
    return section if isinstance(section, dict) else {}


def _or(name: object, names: list[str]) -> str:
    return f"{suggestion(str(name), names) or ';'} {', '.join(names)}"


def judged_models(writers: Sequence[str], against: str) -> list[str]:
    """Return the names of the models that might be shipped: those after the model `against`, the reference.

    `writers` are the models that generate text (no reward models), in the pipeline's order, the base model first.
    """
    return list(writers[writers.index(against) + 1 :]) if against in writers else list(writers)


def _with_path(section: object, path: object) -> object:
    """Return a data section with `path` filled in where it has none; of a list of sections, each."""
    if isinstance(section, list):
        return [_with_path(item, path) for item in section]
    if isinstance(section, dict) and "path" not in section and isinstance(path, str):
        return {"path": path, **section}
    return section


def _mended(problem: Problem, value: dict[str, Any]) -> Problem:
    """Return the problem, with a better message for a stage's key that stands at the top of the pipeline file.

    The message then says where the key belongs.
    """
    place, message = problem
    key = str(place[0]) if len(place) == 1 else ""
    stages = value.get("stages")
    if message.startswith("unknown key") and key and (meaning := _stages_key(key)):
        first = next(iter(stages), "sft") if isinstance(stages, dict) else "sft"
        return place, f"unknown key here; it belongs to a stage, such as stages.{first}: there {meaning}"
    if key in value and any(key in keys_of(cls) for cls in STAGES.values()):
        first = next(iter(stages), "sft") if isinstance(stages, dict) else "sft"
        if message.startswith("unknown key"):
            return place, f"unknown key here; {key} belongs to a stage, such as stages.{first}.{key}"
    return problem


def _stages_key(name: str) -> str | None:
    """Return what another tool's name for a setting means in the stages, e.g. "it is optim.lr"; None if it is none."""
    if other_tools_key(PipelineConfig, name) is not None or nearest(name, keys_of(PipelineConfig), cutoff=0.85):
        return None
    meanings = (other_tools_key(cls, name) for cls in STAGES.values())
    return next((meaning.replace("here it is", "it is") for meaning in meanings if meaning), None)


def _stage_problems(pipeline: dict[str, Any]) -> Iterator[Problem]:
    """Yield the problems of all stages, such as bad names, unknown methods and wrong keys.

    Their paths of keys start at the pipeline's top: ("stages", "dpo", "loss").
    """
    for name, raw in pipeline["stages"].items():
        stage_place: Place = ("stages", name)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            yield stage_place, "a stage's name is a folder's: letters, digits, dots, dashes and underscores"
            continue
        if not isinstance(raw, dict):
            yield stage_place, f"must be a mapping with method, from and the method's keys; got {as_written(raw)}"
            continue
        method = raw.get("method")
        if not isinstance(method, str) or method not in STAGES:
            got = f"{as_written(method)} is not a method" if method is not None else "missing"
            hint = suggestion(str(method), STAGES) if method is not None else ""
            yield (*stage_place, "method"), f"{got}; one of {', '.join(STAGES)}{hint}"
            continue
        links = [((*stage_place, *place), text) for place, text in _link_problems(pipeline["stages"], name)]
        yield from links
        cls, values = _resolve(pipeline, name, Path("run"))
        try:
            cls.model_validate(values)
        except ValidationError as error:
            for place, text in explain(cls, error):
                if (*stage_place, *place) not in dict(links):
                    unknown = text.startswith("unknown key") and len(place) == 1
                    yield (*stage_place, *place), unknown_key(cls, place, LINKS) if unknown else text


def _link_problems(stages: dict[str, Any], name: str) -> Iterator[tuple[Place, str]]:
    """Yield (path of keys, message) for wrong references of a stage to others by `from`, `reward` and `watch`.

    E.g. a stage that comes later, or a reward that is no reward model.
    """
    raw = stages[name]
    earlier = list(stages)[: list(stages).index(name)]
    methods = {stage: raw.get("method") for stage, raw in stages.items() if isinstance(raw, dict)}
    source = raw.get("from")
    if source is not None and "model" in raw:
        yield ("from",), "from and model both name the model to start from; remove one"
    if source is not None and source not in earlier:
        yield ("from",), _not_earlier(source, name, earlier, list(stages))
    elif source is not None and methods.get(source) == "reward" and methods[name] != "reward":
        yield ("from",), f"{source} is a reward model, which cannot generate text; start from a language model"
    for place, reward in _reward_links(raw):
        if reward in stages and reward not in earlier:
            yield place, _not_earlier(reward, name, earlier, list(stages))
        elif reward in earlier and methods.get(reward) != "reward":
            yield place, f"{reward} is no reward model: its method is {methods.get(reward)}"


def _reward_links(raw: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """Yield (path of keys, value) for each setting that may name a reward stage: `reward`, `watch.gold`, …."""
    reward, watch = raw.get("reward"), raw.get("watch")
    if isinstance(reward, str):
        yield ("reward",), reward
    elif isinstance(reward, list):
        yield from ((("reward", index), name) for index, name in enumerate(reward) if isinstance(name, str))
    if isinstance(watch, dict):
        yield from ((("watch", key), watch[key]) for key in ("gold", "reward") if isinstance(watch.get(key), str))


def _not_earlier(source: object, name: str, earlier: list[str], stages: list[str]) -> str:
    before = f"stages before {name}: {', '.join(earlier)}" if earlier else f"{name} is the first stage; leave it out"
    if source == name:
        return f"{name} cannot start from itself; {before}"
    if source in stages:
        return f"{source} comes after {name}, and a stage can only use an earlier one; {before}"
    return f"there is no stage {as_written(source)}{suggestion(str(source), earlier) or ';'} {before}"


def _resolve(pipeline: dict[str, Any], name: str, folder: Path) -> tuple[type[StageConfig], dict[str, Any]]:
    """Return a stage's configuration class and its values.

    The stage's own values go over the pipeline's defaults, and names of other stages are replaced by their folders.
    """
    raw = pipeline["stages"][name]
    cls = STAGES[raw["method"]]
    source = raw.get("from")
    model = pipeline.get("base", "base") if source is None else str(folder / str(source) / "model")
    defaults = {"model": model, "output": folder / name}
    defaults |= {key: pipeline[key] for key in SHARED if pipeline.get(key) is not None}
    allowed = listed(defaults.get("allow"))
    if isinstance(allowed, list):
        # A change of what is allowed to gates is no change of the stages, which would run again.
        defaults["allow"] = [word for word in allowed if word not in get_args(OfGates)]
    values = defaults | {key: item for key, item in raw.items() if key not in LINKS}
    path = pipeline.get("data")
    for key in cls.data_fields:
        values[key] = _with_path(values.get(key, {}), path) if path else values.get(key)
        if values[key] is None:
            del values[key]
    for key in ("eval", "mix"):
        if isinstance(values.get(key), dict) and "data" in values[key]:
            values[key] = {**values[key], "data": _with_path(values[key]["data"], path)}
    for place, reward in _reward_links(values):
        if reward in pipeline["stages"]:
            values = _replaced(values, place, str(folder / reward))
    return cls, values


def _replaced(value: Any, place: Place, leaf: str) -> Any:
    """Return a copy of nested mappings and lists in which the value at the path `place` is `leaf`."""
    if not place:
        return leaf
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = _replaced(copy[place[0]], place[1:], leaf)
    return copy
