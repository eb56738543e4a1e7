"""The command line: what each command hands over, how every error reads, and how fast it answers."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

import warm
from trueup.cli import commands, failures
from trueup.cli import main as cli
from trueup.config import (
    STAGES,
    ComparisonConfig,
    DataConfig,
    DpoConfig,
    PipelineConfig,
    SftConfig,
    load_config,
)
from trueup.config.untrusted import NO_TRUST
from trueup.errors import CheckpointError, ConfigError, Interrupted, MissingExtraError, TrainingError
from trueup.evaluation import sets
from trueup.preflight import early as preflight

Calls = list[tuple[str, tuple[object, ...], dict[str, object]]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a data file, a model and two configurations."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").touch()
    Path("base").mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        Path("base", name).touch()
    Path("base", "config.json").write_text("{}", encoding="utf-8")
    Path("sft.yaml").write_text("model: base\noutput: run\ndata: rows.jsonl\n", encoding="utf-8")
    stages = "stages:\n  sft: {method: sft}\n  dpo: {method: dpo, from: sft}\n"
    Path("pipe.yaml").write_text(f"name: p\nbase: base\ndata: rows.jsonl\n{stages}", encoding="utf-8")
    return tmp_path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Puts a recorder in the place of every module that a command would import."""
    made: Calls = []

    def recorder(module: str) -> SimpleNamespace:
        def record(*args: object, **kwargs: object) -> None:
            made.append((module, args, kwargs))

        return SimpleNamespace(run=record, evaluate=record, report=record)

    monkeypatch.setattr(commands, "import_module", recorder)
    leave_rows_unread(monkeypatch)
    return made


def leave_rows_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configurations here name files that are there, but hold no rows."""
    for name in ("read_rows", "read_pipeline"):
        monkeypatch.setattr(preflight, name, lambda _: None)
    monkeypatch.setattr(sets, "check_sets", lambda *_: None)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Runs a training that raises the given error; returns the exit code."""

    def run(error: BaseException, *options: str) -> int:
        def raising(_: object) -> None:
            raise error

        monkeypatch.setattr(commands, "import_module", lambda _: SimpleNamespace(run=raising))
        leave_rows_unread(monkeypatch)
        return cli.main(["sft", "sft.yaml", *options])

    return run


# ------------------------------------------------------------------ what the commands hand over


@pytest.mark.parametrize("method", ["sft", "reward", "dpo"])
def test_a_stage_gets_its_configuration(method: str, calls: Calls) -> None:
    assert cli.main([method, "sft.yaml", "seed=3", "optim.lr=1e-4"]) == 0
    [(module, (config,), _)] = calls
    assert module == f"trueup.recipes.{method}"
    assert (config.seed, config.optim.lr, config.method) == (3, 1e-4, method)


def test_settings_alone_are_enough(calls: Calls) -> None:
    assert cli.main(["sft", "model=base", "output=run", "data=rows.jsonl"]) == 0
    assert calls[0][1] == (SftConfig(model="base", output=Path("run"), data=DataConfig(path="rows.jsonl")),)


def test_a_pipeline_gets_its_options(calls: Calls) -> None:
    arguments = ["run", "pipe.yaml", "stages.dpo.loss={name: ipo}", "--dry-run", "--force", "sft", "--force", "dpo"]
    assert cli.main(arguments) == 0
    [(module, (config,), options)] = calls
    assert module == "trueup.recipes.pipeline"
    assert isinstance(config, PipelineConfig)
    dpo = config.stage("dpo")[1]
    assert isinstance(dpo, DpoConfig)
    assert dpo.loss.name == "ipo"
    assert options == {"force": ["sft", "dpo"], "dry_run": True, "source": Path("pipe.yaml")}


def test_quickstart(calls: Calls) -> None:
    assert cli.main(["quickstart", "--seed", "3"]) == 0
    assert cli.main(["quickstart", "elsewhere"]) == 0
    assert [args for _, args, _ in calls] == [(Path("runs/quickstart"), 3), (Path("elsewhere"), 0)]


def test_evaluate_chat_and_export(calls: Calls) -> None:
    given = ["evaluate", "base", "prompts={path: rows.jsonl, rows: 0:5}", "samples=7", "gates.capability_drop=0.1"]
    assert cli.main([*given, "--output", "out", "--threads", "2"]) == 0
    assert cli.main(["chat", "base", "--system", "Be brief."]) == 0
    assert cli.main(["export", "base", "out", "--no-merge"]) == 0
    evaluate, chat, export = calls
    models, config = evaluate[1]
    assert models == ["base"]
    assert isinstance(config, ComparisonConfig)
    assert config.prompts == DataConfig(path="rows.jsonl", rows="0:5")
    assert config.samples == 7
    assert config.gates is not None
    assert config.gates.limits == {"capability_drop": 0.1}
    assert evaluate[2] == {"output": Path("out"), "device": "auto", "dtype": "auto", "threads": 2, "strategy": "auto"}
    chat_settings = {
        "temperature": 0.7,
        "max_new_tokens": 256,
        "stop": [],
        "seed": 0,
        "device": "auto",
        "dtype": "auto",
    }
    chat_settings |= {"against": None, "system": "Be brief.", "threads": None, "chat_template": None, "template": []}
    chat_settings["trust"] = NO_TRUST
    assert chat[1:] == (("base",), chat_settings)
    assert export[1:] == (
        (Path("base"), Path("out")),
        {"merge": False, "dtype": "auto", "push_to_hub": None, "private": False, "trust_remote_code": False},
    )


@pytest.mark.parametrize(("verdict", "code"), [("SHIP", 0), ("NOT JUDGED", 0), ("HOLD", 8), ("NOT SHOWN", 9)])
def test_a_verdict_is_told_by_the_exit_code(verdict: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from trueup.report.report_schema import Report

    made = Report.model_construct(verdict=SimpleNamespace(verdict=verdict))
    Path("run/evaluation").mkdir(parents=True)
    Path("run/evaluation/plan.json").write_text("{}")
    monkeypatch.setattr(commands, "import_module", lambda _: SimpleNamespace(report=lambda *_: made))
    assert cli.main(["report", "run"]) == code


def test_evaluate_prints_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "evaluate"]) == 0
    printed = capsys.readouterr().out
    assert "# gates:" in printed
    assert "#   capability_drop:" in printed


@pytest.mark.parametrize("method", ["pipeline", "sft", "reward", "dpo", "ppo"])
def test_config_prints_a_template(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", method]) == 0
    printed = capsys.readouterr().out
    assert ("base: " if method == "pipeline" else "model: ") in printed
    assert "# seed: 0" in printed


# ------------------------------------------------------------------ how errors read


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["sft"], 2, "give CONFIG.yaml or settings; `trueup config sft > sft.yaml` writes one to fill in"),
        (["sft", "stf.yaml"], 2, "stf.yaml: no such file; did you mean sft.yaml?"),
        (["sft", "sft.yaml", "beta=1"], 2, "override beta=1: unknown key"),
        (["dpo", "sft.yaml", "loss.beta_=1"], 2, "did you mean beta? sigmoid takes beta, label_smoothing"),
        (["sft", "sft.yaml", "seed"], 2, "'seed': not a setting; write key=value"),
        (["sft", "sft.yaml", "--lr", "3"], 2, "No such option: --lr; settings are written without dashes: key=value"),
        (["sfft"], 2, "No such command 'sfft'"),
        (["chat", "base", "--temperature", "nan"], 2, "Invalid value for '--temperature'"),
        (
            ["grpo", "c.yaml"],
            2,
            "No such command 'grpo'; GRPO is trueup ppo with rollouts.advantage=grpo and rollouts.per_prompt=4 or more",
        ),
        (["train", "c.yaml"], 2, "train with trueup sft, reward, dpo or ppo CONFIG.yaml, or all stages of a file with"),
        (["run"], 2, "Missing argument 'PIPELINE.yaml'; see `trueup run --help`"),
        (["run", "pipe.yaml", "--force", "sfd"], 2, "--force sfd: there is no such stage; pipe.yaml has sft, dpo"),
        (["config", "grpo"], 2, "grpo: not a method; one of pipeline, sft, reward, dpo, ppo"),
        (["sft", "sft.yaml", "data=row.jsonl"], 3, "row.jsonl: no such file; did you mean rows.jsonl?"),
        (["sft", "sft.yaml", "model=bass"], 4, "bass: no such model folder; did you mean base?"),
        (["chat", "runs/foo"], 4, "runs/foo: no such model folder"),
        (["evaluate", "base", "data=r.jsonl"], 3, "r.jsonl: no such file"),
        (["evaluate", "base", "dta=r.jsonl"], 2, "unknown key; did you mean data?"),
        (["evaluate", "base", "gates.gold_drop=1"], 2, "did you mean gold_reward_drop?"),
        (["evaluate", "samples=3"], 2, "evaluate: no model given"),
        (["evaluate", "gone"], 4, "gone: no such model folder"),
        (["evaluate", "base", "gold=g.py:gold"], 4, "g.py: no such file"),
        (["report", "base"], 2, "base: nothing was evaluated here; run `trueup run` or `trueup evaluate` first"),
        (["experiment", "reward-haking"], 2, "reward-haking: no such experiment; there is: reward-hacking"),
    ],
)
def test_a_wrong_call(
    arguments: list[str], code: int, said: str, calls: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == code
    captured = capsys.readouterr()
    assert calls == []
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert said in captured.err
    assert len(captured.err.splitlines()) <= 6


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("c"), 2, "error: c\n"),
        (CheckpointError("c"), 5, "error: c\n"),
        (TrainingError("t"), 6, "error: t\n"),
        (MissingExtraError("m"), 7, "error: m\n"),
        (
            Interrupted("saved step 7; go on with: trueup sft c.yaml"),
            130,
            "saved step 7; go on with: trueup sft c.yaml\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on from what was saved before\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "run/x"),
            1,
            "error: run/x: disk full; free some space and run the same command again\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "run/x"),
            1,
            "error: run/x: no permission (permission denied); choose another folder or change its permissions\n",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), 1, "error: x: no such file or directory\n"),
        (MemoryError(), 1, "error: out of memory: lower max_tokens"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), 1, "error: out of memory: lower"),
        (RuntimeError("shapes\ndiffer"), 1, "error: RuntimeError: shapes\nrun again with --debug for the traceback\n"),
        (KeyError(), 1, "error: KeyError\nrun again with --debug for the traceback\n"),
    ],
)
def test_an_error_while_it_runs(
    error: BaseException, code: int, said: str, failing: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(error) == code
    printed = capsys.readouterr().err
    assert printed.startswith(said)
    assert "Traceback" not in printed


def test_a_message_is_neither_markup_nor_commands_to_the_terminal(
    failing: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(ConfigError("[bold]x[/bold] \x1b[2J\r:smile:\nline 2"))
    assert capsys.readouterr().err == "error: [bold]x[/bold] \\x1b[2J\\r:smile:\nline 2\n"


@pytest.mark.parametrize("place", [0, 2])
def test_debug_shows_the_traceback_wherever_it_stands(
    place: int, failing: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(ConfigError("c"), "--debug") == ConfigError.exit_code
    arguments = ["sft", "sft.yaml"]
    arguments.insert(place, "--debug")
    capsys.readouterr()
    assert cli.main(arguments) == ConfigError.exit_code
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last):")
    assert said.endswith("trueup.errors.ConfigError: c\n\nerror: c\n")


def test_other_tools_commands_name_commands_that_exist() -> None:
    """Every `trueup WORD` in the table is a command, and every key=value in it is a setting of that command's stage."""
    commands = set(typer.main.get_command(cli.app).commands)  # pyright: ignore[reportAttributeAccessIssue]
    for name, text in failures.OTHER_COMMANDS.items():
        assert name not in commands
        for word in re.findall(r"trueup (\w+)", text):
            assert word in commands, text
        for method, key, value in re.findall(r"trueup (ppo|dpo) with ([\w.]+)=(\w+)", text):
            required = ["prompts=p", "reward=r", "rollouts.per_prompt=4"] if method == "ppo" else ["data=d"]
            load_config(STAGES[method], None, ["model=m", "output=o", *required, f"{key}={value}"])


def test_debug_does_not_change_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--debug", "sfft"]) == 2
    assert capsys.readouterr().err.startswith("error: No such command 'sfft'")


# ------------------------------------------------------------------ the program itself


def trueup(*arguments: str) -> subprocess.CompletedProcess[str]:
    return warm.run([sys.executable, "-m", "trueup", *arguments], capture_output=True, text=True)


def test_help_lists_the_stages_in_order_before_anything_slow_is_imported() -> None:
    """Within a second, that is; what is imported is counted, as seconds depend on the machine."""
    heavy = ("torch", "transformers", "numpy", "jinja2", "rich.progress", "sqlalchemy", "fastapi")
    code = (
        "import sys; from trueup.cli.main import main; code = main([]); "
        f"sys.exit(code or ', '.join(name for name in {heavy} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = [done.stdout.index(f"│ {name} ") for name in ("quickstart", "run", "config", "sft", "reward", "dpo", "ppo")]
    assert found == sorted(found)
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_version() -> None:
    done = trueup("--version")
    assert (done.returncode, done.stdout) == (0, "trueup 0.1.0.dev0\n")


def test_an_error_comes_from_the_program_without_torch() -> None:
    code = (
        "import sys; from trueup.cli.main import main; code = main(['sft', 'sft.yaml', 'data=x.jsonl']); "
        "sys.exit(99 if 'torch' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "error: override data=x.jsonl: x.jsonl: no such file\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"'{sys.executable}' -m trueup config ppo | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("# Reinforcement learning")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said() -> None:
    with Path("/dev/full").open("w") as full:
        done = warm.run(
            [sys.executable, "-m", "trueup", "config", "sft"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: disk full")
