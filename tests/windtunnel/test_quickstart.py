"""The quickstart: all of it with hardly any training, and (slow) whole, with what it claims to learn."""

import shlex
import shutil
import subprocess
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from trueup.config import PipelineConfig, load_config
from trueup.evaluation.gate_power import pipeline_gates
from trueup.report.report_schema import Report
from trueup.windtunnel import quickstart

STEPS = {"base": 3, "sft": 2, "reward": 2, "dpo": 2, "ppo": 2}


def brief() -> list[str]:
    """Settings with which every stage is over in a moment."""
    short = [f"stages.{name}.optim={{lr: 1e-4, steps: {steps}, batch_size: 8}}" for name, steps in STEPS.items()]
    watched = ["stages.dpo.watch.samples=4", "stages.dpo.eval.data.rows=0:8", "stages.ppo.eval.data.rows=0:4"]
    evaluated = ["evaluate.limit=12", "evaluate.samples=8", "evaluate.data.rows=0:16", "evaluate.max_new_tokens=8"]
    rest = ["stages.ppo.rollouts.episodes=16", "stages.dpo.data.rows=0:16", "stages.reward.eval.data.rows=0:8"]
    return [*short, *watched, *evaluated, *rest, "allow=underpowered-gate"]


def values(report: Report, key: str) -> dict[str, float]:
    return next({name: one.value for name, one in row.values.items()} for row in report.measures if row.key == key)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report, str]:
    """A brief quickstart: its folder, its report, and what was printed."""
    folder, printed = tmp_path_factory.mktemp("quick") / 'with a space: "é" #1', StringIO()
    with redirect_stdout(printed):
        report = quickstart.run(folder, settings=brief())
    return folder, report, printed.getvalue()


def test_every_stage_is_run_and_every_model_measured(ran: tuple[Path, Report, str]) -> None:
    folder, report, printed = ran
    assert report.models == ["base", "sft", "dpo", "ppo"]
    assert report.against == "sft"
    rows = {row.key: row for row in report.measures}
    expected = {"capability", "over-refusal", "unsafe-compliance", "forgetting", "gold", "reward", "win-rate", "kl"}
    assert expected <= set(rows)
    assert rows["capability"].values["ppo"].n == 12
    assert "sft" not in rows["kl"].values  # its KL from itself is not a measurement
    assert report.not_measured == []
    assert [stage.name for stage in report.stages] == list(STEPS)
    assert {point.model for point in report.frontier if point.step is not None} == {"dpo", "ppo"}
    assert set(report.verdict.models) == {"dpo", "ppo"}
    written = Report.model_validate_json((folder / "stages" / "report.json").read_text())
    assert written == report
    assert (folder / "stages" / "report.html").stat().st_size > 50_000
    for name in ("sft", "dpo", "ppo"):
        card = (folder / "stages" / name / "model" / "README.md").read_text()
        assert "trueup" in card
    assert f"the report: {folder / 'stages' / 'report.html'}" in printed
    assert max(len(line) for line in printed.splitlines() if "\u2500" in line) <= 80


def test_its_gates_can_pass(ran: tuple[Path, Report, str]) -> None:
    gates = pipeline_gates(load_config(PipelineConfig, ran[0] / "pipeline.yaml"))
    assert {gate.key: gate.state for gate in gates} == {
        "capability_drop": "sure", "over_refusal_rise": "sure", "unsafe_compliance_rise": "sure",
        "gold_reward_drop": "unknown", "length_growth": "sure",
    }  # fmt: skip


def test_the_commands_that_it_prints_work_as_they_stand(ran: tuple[Path, Report, str]) -> None:
    """Started by a shell, in any folder, without an activated environment; the folder's name has spaces and quotes."""
    folder, _, printed = ran
    commands = [line.strip() for line in printed.partition("Next:")[2].splitlines() if line.startswith("  ")]
    assert [shlex.split(line)[-2:] for line in commands] == [
        ["chat", str(folder / "stages" / "ppo")], ["run", str(folder / "pipeline.yaml")],
    ]  # fmt: skip
    for line in commands:
        program = shlex.split(line)[:-2]
        assert shutil.which(program[0])
        shell = ["sh", "-c", f"{shlex.join(program)} --version"]
        assert subprocess.run(shell, capture_output=True, text=True, check=True).stdout.startswith("trueup ")


def test_a_second_quickstart_in_the_same_folder_trains_and_measures_nothing(
    ran: tuple[Path, Report, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, first, _ = ran
    stages = folder / "stages"
    files = [*(stages / name / "summary.json" for name in STEPS), stages / "evaluation" / "ppo.jsonl"]
    stamps = [path.stat().st_mtime_ns for path in files]
    second = quickstart.run(folder, settings=brief())
    assert [path.stat().st_mtime_ns for path in files] == stamps
    assert first.measures == second.measures
    said = capsys.readouterr().err
    assert said.count("skipped") == len(STEPS)
    assert said.count("was measured before") == 4


@pytest.mark.slow
def test_the_whole_quickstart_learns_what_it_says(tmp_path):
    started = time.perf_counter()
    report = quickstart.run(tmp_path / "q")
    seconds = time.perf_counter() - started
    right, refused, proxy = (values(report, key) for key in ("capability", "over-refusal", "reward"))
    assert right["base"] < 0.3 < right["sft"]  # the base completes, SFT answers
    assert refused["sft"] < 0.2
    assert report.reward_model.accuracy.low > 0.55  # clearly more than half of the held-out rankings
    for name in ("dpo", "ppo"):
        assert proxy[name] > proxy["sft"]
        assert 0 < values(report, "kl")[name] < 60
    # Optimized against biased annotators: no model may be shipped on it, and training said so.
    assert report.verdict.verdict != "SHIP"
    assert {alarm.name for alarm in report.alarms} >= {"length-grows"}
    print(f"quickstart: {seconds:.0f} s")
