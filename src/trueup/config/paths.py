"""Check that the files and folders that a configuration names exist: before torch loads, in milliseconds.

A name of the form `owner/name` that is nothing on disk is taken for a name on the Hugging Face hub and left to the
loader.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trueup.config.evaluation import GRADER_NAMES, EvaluateConfig, secret_in
from trueup.config.functions import UserFunction
from trueup.config.pipeline import PipelineConfig
from trueup.config.problems import Place, Problem, dotted, limited, nearest_path, suggestion
from trueup.config.schema import TEMPLATE_NAMES, DpoConfig, PpoConfig, StageConfig
from trueup.config.sections import DataConfig, FunctionConfig, model_of_run
from trueup.config.untrusted import NO_TRUST, Trust, read_json, refusal
from trueup.errors import ConfigError, DataError, ModelError, TrueupError
from trueup.system.files import split_event
from trueup.system.text import excerpt, expanded, home_path, listed, masked

PathProblem = tuple[Place, type[TrueupError], str]
"""The key that names the path, the class of the error, and the message."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "spiece.model")
WEIGHT_PATTERNS = ("*.safetensors", "*.bin")
_POINTER, _POINTER_SIZE = b"version https://git-lfs.github.com/", 1024
_CHAIN = 8  # the most adapters on top of one another; more are taken for a circle

_HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
_FILE_SUFFIXES = (
    ".jsonl", ".json", ".parquet", ".csv", ".txt", ".gz", ".db", ".gguf", ".safetensors", ".bin", ".yaml", ".py"
)  # fmt: skip
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/{1,3}")  # of https://host a Path would make https:/host


def check_paths(config: StageConfig | PipelineConfig | EvaluateConfig) -> None:
    """Raise DataError, ModelError or ConfigError when a file or folder that `config` names is missing or unusable."""
    raise_missing(missing_paths(config))


def missing_paths(config: StageConfig | PipelineConfig | EvaluateConfig, near: Path | None = None) -> list[PathProblem]:
    """Return a problem for each file or folder that the configuration names and that is missing or unusable.

    `near` is the configuration file's folder: if a missing file exists there, the message says so.
    """
    if isinstance(config, PipelineConfig):
        return list(_pipeline(config, near))
    if isinstance(config, EvaluateConfig):
        return list(_evaluate(config, near, (), trust_in(getattr(config, "allow", ()))))
    return list(_stage(config, (), near))


def raise_missing(missing: list[PathProblem], line: Callable[[Problem], str] | None = None) -> None:
    """Raise one error with the messages of all the problems; its class is the first problem's. No problems, no error.

    `line` turns a problem into a line of text, such as one with file and line number before it.
    """
    if missing:
        as_line = line or (lambda problem: f"{'.'.join(map(str, problem[0]))}: {problem[1]}")
        raise missing[0][1](limited([as_line((place, message)) for place, _, message in missing]))


def find_model(name: str, trust: Trust = NO_TRUST) -> str:
    """Return the model to load for `name`: `<name>/model` (or `adapter`) if it is a run folder, else `name` itself.

    Raises:
        ModelError: there is no such model, or it cannot be used.
    """
    name = model_of_run(expanded(name))
    if message := _model_problem(name, trust):
        raise ModelError(message)
    return name


def find_policy(name: str, trust: Trust = NO_TRUST) -> str:
    """Return the model to load for `name` as `find_model` does, for a model that has to generate text.

    Raises:
        ModelError: there is no such model, or it is a reward model.
    """
    model = find_model(name, trust)
    if message := _policy_problem(model, trust):
        raise ModelError(message)
    return model


def trust_of(*stages: StageConfig) -> Trust:
    """Return the permissions for models (remote code, pickled weights and others) that one of the stages gives."""
    code = any(stage.trust_remote_code for stage in stages)
    return trust_in([word for stage in stages for word in stage.allow])._replace(code=code)


def trust_in(allow: Collection[str]) -> Trust:
    """Return the permissions that the words of a setting `allow` give."""
    return Trust(
        pickles="pickled-weights" in allow, ignored_weights="ignored-weights" in allow,
        constant_weights="constant-weights" in allow,
    )  # fmt: skip


def is_hub_name(name: str) -> bool:
    """Return True if `name` is a model's name on the Hugging Face hub (owner/name), and no path on disk starts so."""
    if not _HUB_NAME.match(name) or name.endswith(_FILE_SUFFIXES):
        return False
    owner = name.partition("/")[0]
    return owner != "runs" and not Path(owner).exists()


def is_address(name: str) -> bool:
    """Return True if a model is named by the address of an endpoint, `http://host/v1#name`."""
    return re.match(r"https?://", name) is not None


def address_problem(name: str) -> str | None:
    """Return what is wrong with the address of a model's endpoint, such as a password in it; None if nothing is."""
    url, _ = split_address(name)
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        return f"{masked(url)}: the address of a model is http(s)://HOST/v1#NAME"
    if secret := secret_in(url):
        return f"{masked(url)}: holds {secret}, which would be written into the report; keys go into TRUEUP_KEY_A, …"
    return None


def split_address(name: str) -> tuple[str, str]:
    """Return the url of an endpoint and the model's name there ("" if it has none), of `http://host/v1#name`."""
    url, _, model = name.partition("#")
    return url, model


def _pipeline(config: PipelineConfig, near: Path | None) -> Iterator[PathProblem]:
    outputs: list[Path] = []
    seen: set[str] = set()
    stages = {name: config.stage(name)[1] for name in config.stages}
    for name, stage in stages.items():
        for place, kind, message in _stage(stage, outputs, near):
            if message not in seen:  # the base model and the shared data file are named once, not once a stage
                seen.add(message)
                yield _home(config, name, place, message), kind, message
        outputs.append(stage.output)
    for place, kind, message in _evaluate(config.evaluate, near, config.stages, trust_of(*stages.values())):
        if message not in seen:
            yield ("evaluate", *place), kind, message


def _evaluate(
    config: EvaluateConfig, near: Path | None, stages: Collection[str], trust: Trust
) -> Iterator[PathProblem]:
    if config.chat_template and (message := _template_problem(config.chat_template)):
        yield ("chat_template",), ConfigError, message
    for key in ("data", "prompts", "capability", "forgetting", "innocent", "unsafe"):
        section = getattr(config, key)
        if section and (message := _data_problem(section, near)):
            yield (key,), DataError, message
    for name, published in config.sets.items():
        section = DataConfig(path=published.path) if published.path else None
        hub = published.path is not None and is_hub_name(published.path.partition(":")[0])
        if section and not hub and (message := _data_problem(section, near)):
            yield ("sets", name, "path"), DataError, message
        if published.judge_prompt and not Path(published.judge_prompt).is_file():
            text = f"{published.judge_prompt}: no such file{nearest_path(Path(published.judge_prompt))}"
            yield ("sets", name, "judge_prompt"), DataError, text
    for key in ("reward", "gold", "grader"):
        reward = getattr(config, key)
        if (
            reward
            and reward not in stages
            and not (key == "grader" and reward in GRADER_NAMES)
            and (message := _reward_problem(reward, trust))
        ):
            yield (key,), ModelError, message


def _home(config: PipelineConfig, stage: str, place: Place, message: str) -> Place:
    """Return the path of the pipeline file's key that gave a stage its value.

    It is the stage's own key, or the pipeline's `base` or `data`, from which a stage takes its model and data by
    default.
    """
    raw = config.stages[stage]
    if config.data and message.startswith(f"{home_path(config.data)}: "):
        return ("data",)
    if place == ("model",) and "model" not in raw and "from" not in raw:
        return ("base",)
    if place == ("chat_template",) and "chat_template" not in raw:
        return place
    return ("stages", stage, *place)


def _stage(config: StageConfig, outputs: Collection[Path], near: Path | None) -> Iterator[PathProblem]:
    for place, section in config.data_sections:
        if message := _data_problem(section, near):
            yield place, DataError, message
    if config.chat_template and (message := _template_problem(config.chat_template)):
        yield ("chat_template",), ConfigError, message
    models, trust = [("model", config.model)], trust_of(config)
    if isinstance(config, DpoConfig) and config.reference:
        models.append(("reference", config.reference))
    for key, model in models:
        if Path(model).parent not in outputs and (message := _policy_problem(model, trust)):
            yield (key,), ModelError, message
    for place, reward in rewards_of(config):
        if Path(reward) not in outputs and (message := _reward_problem(reward, trust)):
            yield place, ModelError, message
    for place, section in function_sections(config):
        function = UserFunction.parse(section.name)
        if function and (message := _function_problem(function)):
            yield place, ConfigError, message
    if message := output_problem(config.output):
        yield ("output",), ConfigError, message


def _template_problem(chat_template: str) -> str | None:
    path = home_path(chat_template)
    if chat_template in TEMPLATE_NAMES or path.is_file():
        return None
    names = f"give a template's file, or one of: {', '.join(TEMPLATE_NAMES)}"
    return f"{path}: no such file{suggestion(chat_template, TEMPLATE_NAMES) or nearest_path(path)}\n  fix: {names}"


def function_sections(config: StageConfig) -> list[tuple[Place, FunctionConfig]]:
    """Return (path of keys, section) for a stage's sections that name a function.

    These are DPO's loss, and PPO's advantage and KL estimators.
    """
    if isinstance(config, DpoConfig):
        return [(("loss",), config.loss)]
    if isinstance(config, PpoConfig):
        logged = [] if config.kl.logged is None else [(("kl", "logged"), config.kl.logged)]
        used = [(("rollouts", "advantage"), config.rollouts.advantage), (("kl", "estimator"), config.kl.estimator)]
        return [*used, *logged]
    return []


def function_files(config: StageConfig) -> dict[str, str]:
    """Return {"loss, mine.py": hash} of the files of the user's functions that a stage names, by their keys.

    The hash is the first 16 hex digits of the file's sha256, or "missing".
    """
    named = [(place, section.name) for place, section in function_sections(config)]
    files: dict[str, str] = {}
    for place, name in [*named, *rewards_of(config)]:
        if function := UserFunction.parse(name):
            file = home_path(function.file)
            content = hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else "missing"
            files[f"{dotted(place)}, {function.file}"] = content
    return files


def rewards_of(config: StageConfig) -> Iterator[tuple[Place, str]]:
    """Yield the path of keys and the value of every setting of a stage that names a reward, such as `watch.gold`."""
    if isinstance(config, PpoConfig):
        several = not isinstance(config.reward, str)
        for index, reward in enumerate(config.rewards):
            yield (("reward", index) if several else ("reward",)), reward
    if isinstance(config, PpoConfig | DpoConfig):
        named = {"gold": config.watch.gold, "reward": getattr(config.watch, "reward", None)}
        yield from ((("watch", key), reward) for key, reward in named.items() if reward)


def _data_problem(section: DataConfig, near: Path | None) -> str | None:
    if section.tools is not None and not home_path(section.tools).is_file():
        return f"tools: {section.tools}: no such file{nearest_path(home_path(section.tools))}"
    if _ADDRESS.match(section.path):
        return f"{masked(section.path)}: an address; data is read from files: download it and give the file"
    path = home_path(split_event(section.path)[0])
    if path.exists():
        return None if os.access(path, os.R_OK) else f"{path}: not readable; check its permissions"
    if is_hub_name(section.path):
        return None
    if near is not None and (near / path).exists():
        return f"{path}: no such file here; {near / path} exists (paths start from the current folder, not the YAML's)"
    return f"{path}: no such file{nearest_path(path)}"


def _model_problem(model: str, trust: Trust) -> str | None:
    if _ADDRESS.match(model):
        return f"{masked(model)}: an address; give the model's folder, or its name on the hub: owner/name"
    path = home_path(model)
    if path.is_dir():
        return _folder_problem(path, trust)
    if path.exists():
        return None if path.suffix == ".gguf" else f"{path}: a model is a folder, a .gguf file or a hub name"
    if is_hub_name(model):
        return None
    hint = nearest_path(path)
    if path.name == model and not path.suffix and not hint:
        hint = "; a name on the hub has the form owner/name"
    return f"{path}: no such {'file' if path.suffix == '.gguf' else 'model folder'}{hint}"


def _policy_problem(model: str, trust: Trust) -> str | None:
    folder = home_path(model)
    problem = policy_problem(folder) if (folder / "config.json").is_file() else None
    return problem or _model_problem(model, trust)


def _folder_problem(path: Path, trust: Trust) -> str | None:
    if not (path / "config.json").exists():
        if (path / "model" / "config.json").exists():
            return f"{path}: a run folder; its model is {path / 'model'}"
        if (path / "config.yaml").exists():
            return f"{path}: a run folder without a model yet; finish that run first"
        if stages := sorted(inner.parent.parent.name for inner in path.glob("*/model/config.json")):
            return (
                f"{path}: a pipeline's folder; name one of its stages: {', '.join(str(path / name) for name in stages)}"
            )
        if is_adapter(path):
            return _adapter_problem(path, trust)
        return f"{path}: not a model folder: it has no config.json{_models_in(path)}"
    if pointer := _pointer(path):
        return f"{pointer}: is a pointer of Git LFS, not the file itself\n  fix: run `git lfs pull` in its folder"
    if not has_tokenizer(path):
        return f"{path}: has no tokenizer ({', '.join(TOKENIZER_FILES[:3])}); copy it from the base model"
    if not any(next(path.glob(pattern), None) for pattern in WEIGHT_PATTERNS):
        return f"{path}: has no weights ({', '.join(WEIGHT_PATTERNS)})"
    return _refused(path, trust) or quantization_problem(path)


def _pointer(path: Path) -> Path | None:
    """Return the first file of a model's folder that is only a pointer of Git LFS, left by a clone without it."""
    for pattern in (*WEIGHT_PATTERNS, *TOKENIZER_FILES):
        for file in sorted(path.glob(pattern)):
            if file.is_file() and file.stat().st_size < _POINTER_SIZE and file.read_bytes().startswith(_POINTER):
                return file
    return None


def _models_in(path: Path) -> str:
    """Return the text that names the models and adapters in the folders of a folder; "" if there are none."""
    names = ("config.json", "adapter_config.json")
    inner = sorted({file.parent.name for name in names for file in path.glob(f"*/{name}")})
    return f"\n  fix: name a folder in it, such as {path / inner[0]}: {listed(inner, 5)}" if inner else ""


def _refused(path: Path, trust: Trust) -> str | None:
    try:
        return refusal(path, trust)
    except ModelError as error:
        return str(error)


def is_adapter(path: Path) -> bool:
    """Return True if a folder holds a PEFT adapter (adapter_config.json) and no complete model."""
    return (path / "adapter_config.json").is_file() and not (path / "config.json").exists()


def has_tokenizer(path: Path) -> bool:
    """Return True if a folder holds a tokenizer's file, such as tokenizer.json."""
    return any((path / name).exists() for name in TOKENIZER_FILES)


def adapter_base(path: Path) -> str:
    """Return the base model that a PEFT adapter was trained on, as its adapter_config.json names it.

    The base may itself be an adapter; that chain is followed only to check that it ends.

    Raises:
        ModelError: an adapter names no base, or the chain of bases is a circle.
    """
    name = _named_base(path)
    base = Path(name)
    for _ in range(_CHAIN):
        if not is_adapter(base):
            return name
        base = Path(_named_base(base))
    raise ModelError(f"{path}: its base is an adapter, and that one's again, in a circle\n  fix: name the base model")


def _named_base(path: Path) -> str:
    settings = path / "adapter_config.json"
    name = read_json(settings).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ModelError(f"{settings}: base_model_name_or_path is missing; write the base model's folder or hub name")
    return name


def _adapter_problem(path: Path, trust: Trust) -> str | None:
    try:
        base = adapter_base(path)
        task = read_json(path / "adapter_config.json").get("task_type")
    except ModelError as error:
        return str(error)
    if task == "SEQ_CLS":
        return f"{path}: the adapter of a reward model, which cannot generate text; give a language model's adapter"
    problem = _model_problem(base, trust)
    return f"{path}: the adapter's base model cannot be used: {problem}" if problem else _refused(path, trust)


def _reward_problem(reward: str, trust: Trust) -> str | None:
    if _ADDRESS.match(reward):
        return _model_problem(reward, trust)
    if function := UserFunction.parse(reward):
        return _function_problem(function)
    path = home_path(reward)
    if path.suffix == ".py":
        return f"{path}: name the function too: {path}:my_reward"
    if path.is_dir():
        inner = path / "model" if (path / "model").is_dir() else path
        if (inner / "config.json").exists():
            return _folder_problem(inner, trust) or classifier_problem(inner)
        if (path / "config.yaml").exists():
            return f"{path}: a run folder without a model yet; finish that run first"
        return _folder_problem(path, trust)
    if is_hub_name(reward):
        return None
    return f"{path}: no such reward model folder{nearest_path(path)} (or give a function: file.py:function)"


def classifier_problem(folder: Path, name: object = None) -> str | None:
    """Return the reason why the model in `folder` is no reward model, or None if it is one.

    A reward model is a sequence classifier with one label. `name` is the model's name for the message, if another.
    """
    try:
        settings = read_json(folder / "config.json")
    except ModelError as error:
        return str(error)
    labelled, architectures, name = settings.get("id2label"), _architectures(settings), name or folder
    if architectures and "SequenceClassification" not in architectures[0]:
        return (
            f"{name} holds a {architectures[0]}, not a reward model: train one with `trueup reward`, "
            "or give a sequence classifier with one label"
        )
    # transformers' default of 2 labels is not written to config.json
    labels = len(labelled) if isinstance(labelled, dict) and labelled else settings.get("num_labels", 2)
    if architectures and labels != 1:
        return f"{name} has {labels} labels; a reward model has one (num_labels=1)"
    return None


def policy_problem(folder: Path, name: object = None) -> str | None:
    """Return the reason why the model in `folder` cannot generate text, being a classifier; None if it may.

    `name` is the model's name for the message, if another than the folder's.
    """
    try:
        architectures = _architectures(read_json(folder / "config.json"))
    except ModelError as error:
        return str(error)
    kind = next((name for name in architectures if "Classification" in name), None)
    if kind is None:
        return None
    what, place = "a reward model" if "Sequence" in kind else f"a {kind}", Path(str(name or folder))
    run = place.parent if place.name == "model" and place.is_dir() else place
    return (
        f"{run}: is {what}, which scores answers and cannot generate text\n"
        "  fix: name the run of an SFT, DPO or PPO stage, or the base model"
    )


def _architectures(settings: dict[str, Any]) -> list[str]:
    named = settings.get("architectures")
    return [str(name) for name in named] if isinstance(named, list) else []


def quantization_problem(folder: Path, name: object = None) -> str | None:
    """Return the reason why a model whose weights are quantized is refused; None if its weights are floats.

    `name` is the model's name for the message, if another than the folder's.
    """
    settings = read_json(folder / "config.json")
    parts = [settings, *(value for value in settings.values() if isinstance(value, dict))]
    quantized = next((part["quantization_config"] for part in parts if part.get("quantization_config")), None)
    if quantized is None:
        return None
    method = quantized.get("quant_method") if isinstance(quantized, dict) else None
    bits = quantized.get("bits") if isinstance(quantized, dict) else None
    if method is None and isinstance(quantized, dict):
        method = "bitsandbytes" if {"load_in_4bit", "load_in_8bit"} & quantized.keys() else None
    how = f" by {excerpt(str(method))[1:-1]}" if method else ""
    amount = f" to {bits} bits" if isinstance(bits, int) else ""
    return (
        f"{name or folder}: its weights are quantized{how}{amount} (quantization_config in config.json)\n"
        "  fix: take the model that was quantized, in bfloat16 or float32; LoRA over it trains with little memory"
    )


def _function_problem(function: UserFunction) -> str | None:
    path, name = home_path(function.file), function.name
    if not path.is_file():
        return f"{path}: no such file{nearest_path(path)}"
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        return f"{path}{line}: not Python: {error.args[0]}"
    names, functions = set[str](), list[str]()
    for node in ast.walk(
        tree
    ):  # also in `try` and `if`; what is no function of the module after all, `load_function` says
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef):
            functions.append(node.name)
        elif isinstance(node, (ast.AsyncFunctionDef, ast.ClassDef)) and node.name == name:
            kind = "a class" if isinstance(node, ast.ClassDef) else "an `async def`, which nobody awaits"
            return f"{path}:{node.lineno}: {name} is {kind}; give a plain function"
    if name in functions or names & {name, "*"}:
        return None
    return f"{path}: has no function {name}; it has {', '.join(functions) or 'none'}"


def output_problem(output: Path, purpose: str = "run") -> str | None:
    """Return the reason why nothing can be written into the folder `output`, None if it can; nothing is created."""
    if _ADDRESS.match(str(output)):
        return f"{masked(str(output))}: an address; give a folder for the {purpose}"
    path = home_path(output).absolute()
    if path.exists() and not path.is_dir():
        return f"{output}: is a file; give a folder for the {purpose}"
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    if not existing.is_dir():
        return f"{output}: cannot be made: {existing} is a file"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{output}: cannot be written: no permission in {existing}"
    return None
