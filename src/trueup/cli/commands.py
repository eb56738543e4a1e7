"""The work of each command of `trueup`.

Heavy modules are imported inside the functions, so that an error is reported before torch loads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from trueup.cli.failures import OTHER_COMMANDS
from trueup.errors import ConfigError, MissingExtraError, TrueupError
from trueup.system.commandline import install_command, is_from_this_machine
from trueup.system.text import home_path

if TYPE_CHECKING:
    from trueup.config import ComparisonConfig, PipelineConfig, StageConfig

Job = Callable[[], int | None]
"""The work of a command, started after the command line is understood; it may return an exit code."""


def quickstart(folder: Path, seed: int) -> None:
    """Carry out `trueup quickstart`: train and align a tiny model in the wind tunnel, a small world of known truth."""
    import_module("trueup.windtunnel.quickstart").run(folder, seed)


def check(
    target: str, settings: list[str], model: str | None, method: str | None, *, as_json: bool, strict: bool
) -> int:
    """Carry out `trueup check`: check data and models for faults, without training. Returns the exit code."""
    from trueup.config import PipelineConfig
    from trueup.evaluation.gate_power import gate_findings, pipeline_gates
    from trueup.evaluation.sets import check_sets
    from trueup.preflight.early import read_pipeline, read_rows

    try:
        config = _load_target(target, settings, model, method)
        if isinstance(config, PipelineConfig):
            read_pipeline(config)
            check_sets(config.evaluate, config.gates)
            evaluated = import_module("trueup.recipes.held_out").evaluated_sets(config.evaluate, "evaluate.")
            gates = gate_findings(pipeline_gates(config), config.allow)
            result = import_module("trueup.preflight.report").check_pipeline(config, evaluated, gates)
        else:
            read_rows(config)
            result = import_module("trueup.preflight.report").check_stage(config)
    except TrueupError as error:
        if not as_json:
            raise
        finding = {"code": "unusable", "level": "error", "section": "", "text": str(error)}
        content = {"ok": False, "errors": 1, "warnings": 0, "notes": 0, "stages": {}, "findings": [finding]}
        print(json.dumps(content, indent=2))
        return error.exit_code
    import_module("trueup.preflight.report").show(result, as_json=as_json)
    return result.exit_code(strict=strict)


def plan(target: str | None, settings: list[str], **options: Any) -> int:
    """Carry out `trueup plan`: compute how many items each gate needs. Returns the exit code."""
    from trueup.config import ComparisonConfig, PipelineConfig, load_config
    from trueup.config.yamlfile import read_yaml

    if target is not None and "=" in target and not Path(target).exists():
        target, settings = None, [target, *settings]
    path = None if target is None else home_path(target)
    is_pipeline = path is not None and "stages" in read_yaml(path).data
    config = load_config(PipelineConfig if is_pipeline else ComparisonConfig, path, settings)
    return import_module("trueup.cli.plan").run(config, **options)


def show(
    target: str,
    settings: list[str],
    model: str | None,
    method: str | None,
    *,
    rows: int,
    tokens: bool,
    html: Path | None,
) -> None:
    """Carry out `trueup show`: print a stage's rows as the model gets them (tokens, masks), or write them as HTML."""
    from trueup.config import PipelineConfig
    from trueup.preflight.early import read_rows

    if html is not None and not html.absolute().parent.is_dir():
        raise ConfigError(f"--html {html}: there is no folder {html.parent}; create it, or name another")
    config = _load_target(target, settings, model, method)
    stages = [config.stage(name)[1] for name in config.stages] if isinstance(config, PipelineConfig) else [config]
    for stage in stages:
        read_rows(stage)
    import_module("trueup.preflight.show.command").run(
        stages, getattr(config, "base", None), rows=rows, tokens=tokens, html=html
    )


def _load_target(
    target: str, settings: list[str], model: str | None, method: str | None
) -> PipelineConfig | StageConfig:
    """Return the configuration that `check` and `show` examine, without importing anything heavy.

    `target` is a YAML file of a stage or a pipeline, or a data file, which needs `model`.
    """
    from trueup.config import STAGES, PipelineConfig, find_policy, load_config
    from trueup.config.yamlfile import read_yaml
    from trueup.preflight.method import stage_for

    path, method = home_path(target), method and method.lower()
    if path.suffix not in (".yaml", ".yml"):
        if model is None and (target in STAGES or ("=" in target and not path.exists())):
            raise ConfigError(
                f"{target}: neither a configuration nor a data file\n  fix: trueup check CONFIG.yaml --method sft, or "
                "trueup check DATA.jsonl --model MODEL; settings follow the file"
            )
        if model is None:
            raise ConfigError(f"{target}: give the model whose tokenizer reads it: --model MODEL")
        return stage_for(target, find_policy(model), method, settings)
    if model is not None:
        settings = [*settings, f"model={model}"]
    keys = set(read_yaml(path).data)
    if "stages" in keys:
        return load_config(PipelineConfig, path, settings, check_files=True)
    if method is None and "prompts" in keys:
        method = "ppo"
    if method not in STAGES:
        raise ConfigError(f"{target}: the stage's method is not known; give --method with one of {', '.join(STAGES)}")
    return load_config(STAGES[method], path, settings, check_files=True)


def train(method: str, file: str | None, settings: list[str]) -> None:
    """Carry out `trueup sft`, `reward`, `dpo` or `ppo`: train one stage."""
    from trueup.config import STAGES, load_config
    from trueup.preflight.early import read_rows

    if file and "=" in file and not Path(file).exists():
        file, settings = None, [file, *settings]
    if file is None and not settings:
        raise ConfigError(
            f"give CONFIG.yaml or settings; `trueup config {method} > {method}.yaml` writes one to fill in"
        )
    config = load_config(STAGES[method], Path(file) if file else None, settings, check_files=True)
    read_rows(config)
    import_module(f"trueup.recipes.{method}").run(config)


def run_pipeline(path: Path, settings: list[str], *, dry_run: bool, force: list[str]) -> int:
    """Carry out `trueup run`: run a pipeline file's stages and its evaluation. Returns the exit code."""
    from trueup.config import PipelineConfig, load_config
    from trueup.evaluation.gate_power import pipeline_gates, require_passable
    from trueup.evaluation.sets import check_sets
    from trueup.preflight.early import read_pipeline

    config = load_config(PipelineConfig, path, settings, check_files=True)
    for name in force:
        if name not in config.stages:
            raise ConfigError(f"--force {name}: there is no such stage; {path} has {', '.join(config.stages)}")
    read_pipeline(config)
    check_sets(config.evaluate, config.gates)
    require_passable(pipeline_gates(config), config.allow)
    report = import_module("trueup.recipes.pipeline").run(config, force=force, dry_run=dry_run, source=path)
    return _exit_code(report)


def _exit_code(result: object) -> int:
    """Return the exit code for a command's result: that of a Report's verdict, or 0 if it is no Report."""
    if result is None:
        return 0
    from trueup.report.publish import EXIT
    from trueup.report.report_schema import Report

    return EXIT[result.verdict.verdict] if isinstance(result, Report) else 0


def print_template(method: str) -> None:
    """Carry out `trueup config`: print a YAML configuration to fill in."""
    from trueup.config import STAGES, ComparisonConfig, PipelineConfig, RankConfig, template

    classes = {"pipeline": PipelineConfig, **STAGES, "evaluate": ComparisonConfig, "rank": RankConfig}
    method = method if method in classes else method.lower()
    if method not in classes:
        other = OTHER_COMMANDS.get(method)
        raise ConfigError(f"{method}: not a method; one of {', '.join(classes)}{f' ({other})' if other else ''}")
    print(template(classes[method]), end="")


def evaluate(runs: list[str], output: Path, file: Path | None, **where: Any) -> int:
    """Carry out `trueup evaluate`: measure models side by side and write a report. Returns the exit code."""
    models, config = _compared("evaluate", runs, file, output)
    if not models:
        raise ConfigError("evaluate: no model given; name run folders, model folders, hub names or .gguf files first")
    command = import_module("trueup.cli.compare")
    return _exit_code(command.evaluate(models, config, output=output, **where))


def audit(runs: list[str], output: Path, file: Path | None, *, workflow: bool = False, **where: Any) -> int:
    """Carry out `trueup audit`: is B better than A, and what did it cost? Returns the exit code."""
    if workflow:
        defaults = {"device": "auto", "dtype": "auto", "threads": None, "strategy": "auto"}
        unused = ["output"] * (output != Path("runs/audit")) + [key for key in where if where[key] != defaults.get(key)]
        if unused:
            raise ConfigError(f"--workflow: --{unused[0]} has no effect on the workflow; leave it out")
        return _write_workflow(runs, file)
    from trueup.config.evaluation import audit_gates
    from trueup.config.paths import is_address
    from trueup.data.tokens.build import cache_root

    models, config = _compared("audit", runs, file, output)
    if len(models) < 2:
        raise ConfigError("audit: name two models or more; the others are compared with the first: trueup audit A B")
    if config.gates is None:
        limits = audit_gates(config, only_texts=any(is_address(model) for model in models))
        # Nobody set these limits: what so few items cannot show is said in the report, and no error.
        config = config.model_copy(update={"gates": limits, "allow": [*config.allow, "underpowered-gate"]})
    command = import_module("trueup.cli.compare")
    return _exit_code(command.evaluate(models, config, output=output, store=cache_root() / "measured", **where))


def _write_workflow(runs: list[str], file: Path | None) -> int:
    """Write the workflow of `trueup audit --workflow`; the models need not be here, the settings are checked."""
    from trueup.cli.workflow import write_workflow
    from trueup.config import ComparisonConfig, load_config

    models, settings = _sorted_out(runs)
    load_config(ComparisonConfig, file, settings)
    if len(models) < 2:
        raise ConfigError("audit: name two models or more, as they are called in the repository: trueup audit A B")
    named = [] if file is None else ["--config", str(file)]
    print(f"written: {write_workflow([*named, *models, *settings])}")
    if is_from_this_machine():
        example = "trueup[gguf] @ git+https://HOST/OWNER/trueup@COMMIT"
        print("trueup was installed from this machine, which CI cannot reach: set the repository variable TRUEUP")
        print(f"to what pip can install there, such as {example}")
    return 0


def _sorted_out(runs: list[str]) -> tuple[list[str], list[str]]:
    """Return the models and the settings (key=value) among the arguments of `evaluate` and `audit`."""
    from trueup.config.paths import is_address

    settings = [word for word in runs if "=" in word and not is_address(word) and not Path(word).exists()]
    return [word for word in runs if word not in settings], settings


def _compared(command: str, runs: list[str], file: Path | None, output: Path) -> tuple[list[str], ComparisonConfig]:
    """Return the models and the settings among the arguments of `evaluate` and `audit`, all checked without torch."""
    from trueup.config import ComparisonConfig, find_model, load_config
    from trueup.config.paths import address_problem, is_address, output_problem, trust_in
    from trueup.evaluation.sets import check_sets

    models, settings = _sorted_out(runs)
    config = load_config(ComparisonConfig, file, settings, check_files=True)
    if problem := output_problem(output, "report"):
        raise ConfigError(f"--output {problem}")
    if any((home_path(output) / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ConfigError(f"--output {output}: is a model's folder; give a folder for the report alone")
    for model in models:
        if not model.strip():
            raise ConfigError(f"{command}: the name of a model is empty; is a shell variable not set?")
        if not is_address(model):
            find_model(model, trust_in(config.allow))
        elif problem := address_problem(model):
            raise ConfigError(f"{command}: {problem}")
    check_sets(config, config.gates)
    return models, config


def report(runs: list[Path], output: Path | None) -> int:
    """Carry out `trueup report`: write the report of finished evaluations again. Returns the exit code."""
    from trueup.config.paths import output_problem

    for run in runs:
        if not (run / "evaluation" / "plan.json").is_file():
            raise ConfigError(f"{run}: nothing was evaluated here; run `trueup run` or `trueup evaluate` first")
    if output is not None and (problem := output_problem(output, "report")):
        raise ConfigError(f"--output {problem}")
    return _exit_code(import_module("trueup.cli.compare").report(runs, output))


def experiment(name: str, folder: Path | None, seeds: int, first_seed: int) -> None:
    """Carry out `trueup experiment`: repeat an experiment over several seeds."""
    if name != "reward-hacking":
        raise ConfigError(f"{name}: no such experiment; there is: reward-hacking")
    module = import_module("trueup.experiments.reward_hacking")
    module.run(folder or Path("runs") / name, seeds=seeds, first=first_seed)


def chat(model: str, against: str | None, *, allow: Sequence[str], **settings: Any) -> None:
    """Carry out `trueup chat`: talk to a model, or to two side by side."""
    from trueup.config import find_policy
    from trueup.config.paths import trust_in
    from trueup.config.sections import AllowedWeights

    if unknown := [word for word in allow if word not in get_args(AllowedWeights)]:
        raise ConfigError(f"--allow {unknown[0]}: one of {', '.join(get_args(AllowedWeights))} is wanted")
    trust = trust_in(allow)
    first, second = find_policy(model, trust), None if against is None else find_policy(against, trust)
    import_module("trueup.chat.session").run(first, against=second, trust=trust, **settings)


def rank(store: Path, file: Path | None, settings: Sequence[str], options: Mapping[str, Any]) -> None:
    """Carry out `trueup rank`: serve the web page on which people rank answers."""
    from trueup.config import RankConfig, find_model, find_policy, load_config

    config = load_config(RankConfig, file, settings, options=options)
    models, reward = [find_policy(model) for model in config.model], config.reward and find_model(config.reward)
    _ranking().serve(store, config.model_copy(update={"model": models, "reward": reward}))


def rank_export(store: Path, output: Path, **settings: Any) -> None:
    """Carry out `trueup rank export`: write the votes in a store as rows of training data."""
    _ranking().export(store, output, **settings)


def rank_import(store: Path, file: Path, **settings: Any) -> None:
    """Carry out `trueup rank import`: read rankings from a file into a store of votes."""
    _ranking().import_(store, file, **settings)


def rank_results(store: Path, **settings: Any) -> None:
    """Carry out `trueup rank results`: show win rates, agreement and biases of the votes in a store."""
    _ranking().results(store, **settings)


def _ranking() -> Any:
    missing = [name for name in ("sqlalchemy", "fastapi", "uvicorn", "markdown_it", "pygments") if not find_spec(name)]
    if missing:
        raise MissingExtraError(f"rank needs {', '.join(missing)}\n  fix: {install_command('rank')}")
    return import_module("trueup.ranking.command")


def export(run: Path, output: Path | None, **settings: Any) -> None:
    """Carry out `trueup export`: write a run's model as a Hugging Face folder, and verify it."""
    from trueup.config import find_model

    run, output = home_path(run), output and home_path(output)
    find_model(str(run))
    import_module("trueup.export").run(run, output, **settings)
