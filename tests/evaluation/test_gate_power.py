"""Gates that cannot pass are errors before anything is trained, weak ones warnings; every shipped gate can pass."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from trueup.config import DEFAULT_LIMITS, ComparisonConfig, EvaluateConfig, GatesConfig, PipelineConfig, load_config
from trueup.config.evaluation import TASK_OF
from trueup.errors import ConfigError
from trueup.evaluation.gate_power import (
    EXPECTED,
    SUBJECTS,
    GatePower,
    gate_findings,
    pipeline_gates,
    place,
    plan_gates,
    require_passable,
    ships,
)
from trueup.stats.power import rate_power

ROOT = Path(__file__).parents[2]


def plan(key: str, limit: float, n: int | None, candidates: int = 1) -> GatePower:
    return GatePower(key, limit, n, EXPECTED.get(key.partition("/")[0]), candidates)


def test_every_gate_has_a_subject() -> None:
    assert set(SUBJECTS) == set(TASK_OF)


def test_a_gate_that_cannot_pass_is_an_error_that_names_all_there_is_to_know() -> None:
    gate = plan("over_refusal_rise", 0.05, 44)
    assert gate.state == "cannot"
    with pytest.raises(ConfigError) as caught:
        require_passable([plan("capability_drop", 0.05, 600), gate], [])
    assert str(caught.value) == (
        "gates.over_refusal_rise: limit 0.05 cannot pass with 44 innocent prompts: a model whose every answer is the "
        "same would not pass\n  fix: give 339 innocent prompts (evaluate.innocent), or set gates.over_refusal_rise to "
        "0.17 or more, or allow it: allow=[underpowered-gate]"
    )
    require_passable([gate], ["underpowered-gate"])
    (finding,) = gate_findings([gate], ["underpowered-gate"])
    assert finding.level == "allowed"


def test_what_an_unchanged_model_passes_once_in_ten_cannot_pass_either() -> None:
    """2,000 items under 0.002: equal answers end at 0.0019, but 5% that differ by chance pass in 6% of cases."""
    gate = plan("capability_drop", 0.002, 2000)
    assert gate.identical == 1.0
    assert gate.state == "cannot"
    assert "passes in 5% to 6% of evaluations" in gate.in_words()


def test_a_weak_gate_is_a_warning_with_its_numbers() -> None:
    gate = plan("capability_drop", 0.02, 200)
    (finding,) = gate_findings([gate], [])
    assert (finding.level, finding.code) == ("warning", "underpowered-gate")
    assert "limit 0.02, 200 questions: an unchanged model passes in 13% to 19% of evaluations" in finding.text
    assert finding.text.endswith("8 of 10 from 1,994")
    assert "give 1,994 questions (evaluate.capability), or set gates.capability_drop to 0.07 or more" in finding.fix


def test_the_fixes_do_what_they_say() -> None:
    for key, limit, n in [("capability_drop", 0.02, 200), ("win_rate", 0.45, 64), ("length_growth", 1.3, 64),
                          ("forgetting_rise", 0.01, 72)]:  # fmt: skip
        gate = plan(key, limit, n)
        assert gate.state in ("weak", "cannot")
        assert gate.needed is not None
        assert gate.passable is not None
        assert plan(key, limit, gate.needed).state == "sure"
        assert plan(key, gate.passable, n).state == "sure"


def test_candidates_make_gates_harder() -> None:
    alone, among = plan("over_refusal_rise", 0.06, 300), plan("over_refusal_rise", 0.06, 300, candidates=3)
    assert (alone.state, among.state) == ("sure", "weak")
    assert "gates.model" in among.fix()
    limits = GatesConfig(over_refusal_rise=0.06)
    assert [gate.candidates for gate in plan_gates(EvaluateConfig(), limits, 3)] == [3]
    named = limits.model_copy(update={"model": "ppo"})
    assert [gate.candidates for gate in plan_gates(EvaluateConfig(), named, 3)] == [1]


def test_gates_that_ask_for_a_gain_say_which_gain_passes() -> None:
    gate = plan("capability_drop", 0.0, 600)
    assert gate.state == "gain"
    gain = gate.gain()
    assert gain is not None
    assert rate_power(600, 0.0, max(0.1, gain), gain) >= 0.8
    assert f"a true gain of {gain:.3f} passes 8 times of 10" in gate.in_words()
    assert plan("win_rate", 0.5, 200).state == "gain"


def test_a_gain_that_is_demanded_needs_a_larger_one() -> None:
    gate = plan("task_gain", 0.03, 600)
    gain = gate.gain()
    assert gain is not None
    assert rate_power(600, -0.03, max(0.1, gain), gain) >= 0.8 > rate_power(600, -0.03, max(0.1, gain), gain - 0.005)
    assert gate.in_words().startswith("gain of 0.03, 600 questions: an unchanged model passes 1 time in 40 at most; a")
    assert "one of 0.06 from 788" in gate.in_words()
    assert rate_power(788, -0.03, 0.1, 0.06) >= 0.8 > rate_power(780, -0.03, 0.1, 0.06)
    few = plan("task_gain", 0.03, 3)
    assert few.state == "cannot"
    assert "not even a model that is better on all of them would pass" in few.in_words()
    assert few.fix() == "give more questions (evaluate.capability)"
    assert plan("gold_reward_gain", 0.1, 100).state == "gain"


def test_what_is_not_known_is_said() -> None:
    assert "the number of items is not known" in plan("harness_drop/arc", 0.03, None).in_words()
    gold = plan("gold_reward_drop", 0.1, 100)
    assert gold.state == "unknown"
    assert "standard deviation of its paired differences is at most 0.357" in gold.in_words()


def test_a_factor_of_one_cannot_pass() -> None:
    assert plan("length_growth", 1.0, 64).state == "cannot"


def test_slices_count_their_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    rows = [{"question": f"{at}?", "answer": "1", "topic": "maths/sums" if at < 30 else "rest"} for at in range(200)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = EvaluateConfig.model_validate({"capability": str(path)})
    limits = GatesConfig.model_validate({"capability_drop": 0.1, "slices": {"capability_drop": {"maths": 0.1}}})
    gates = {gate.key: gate for gate in plan_gates(config, limits, 1)}
    assert {key: gate.n for key, gate in gates.items()} == {"capability_drop": 200, "capability_drop/maths": 30}
    assert gates["capability_drop/maths"].state == "cannot"
    assert "30 questions of maths" in gates["capability_drop/maths"].in_words()
    assert place("capability_drop/maths") == "gates.slices.capability_drop.maths"
    assert place("harness_drop/arc") == "gates.harness_drop.arc"


def test_an_unchanged_model_ships_through_the_default_gates() -> None:
    gates = plan_gates(EvaluateConfig(), GatesConfig.model_validate(DEFAULT_LIMITS), 1)
    assert {gate.state for gate in gates} == {"sure"}
    together = ships(gates)
    assert together is not None
    assert together[0] >= 0.8
    for gate in gates:
        at, twice = gate.at(1), gate.at(2)
        assert at is not None
        assert at <= 0.0251
        assert twice is not None
        assert twice <= 0.001


def test_default_stands_for_the_default_limits() -> None:
    config = load_config(ComparisonConfig, None, ["gates=default"])
    assert config.gates is not None
    assert config.gates.limits == DEFAULT_LIMITS
    settings = ["name=n", "base=b", "stages.a.method=sft", "stages.a.data=d.jsonl"]
    with pytest.raises(ConfigError, match=r"no stage comes after"):
        load_config(PipelineConfig, None, [*settings, "gates=default"])
    with pytest.raises(ConfigError, match="gates"):
        load_config(ComparisonConfig, None, ["gates=defaults"])


def test_what_is_allowed_to_gates_is_no_setting_of_the_stages() -> None:
    settings = ["name=n", "base=b", "stages.a.method=sft", "stages.a.data=d.jsonl"]
    plain = load_config(PipelineConfig, None, [*settings, "allow=eval-overlap"])
    more = load_config(PipelineConfig, None, [*settings, "allow=[eval-overlap, underpowered-gate]"])
    assert more.stage("a") == plain.stage("a")
    with pytest.raises(ConfigError, match="underpowered-gate"):
        load_config(PipelineConfig, None, [*settings, "stages.a.allow=underpowered-gate"])


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_passes_its_planning(path: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    row = {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}
    data.write_text(2000 * (json.dumps(row) + "\n"))
    gates = pipeline_gates(load_config(PipelineConfig, path, [f"data={data}"]))
    assert gates
    assert {gate.key: gate.state for gate in gates if gate.state in ("weak", "cannot")} == {}


def test_the_gates_of_the_readme_can_pass() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    content = next(yaml.safe_load(block) for block in blocks if "stages:" in block)
    content["evaluate"] = {}  # whose files are the reader's
    gates = pipeline_gates(PipelineConfig.model_validate(content))
    assert len(gates) > 3
    assert {gate.state for gate in gates} == {"sure"}


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gate_power_script", ROOT / "scripts" / "gate_power.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_script_prints_its_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gate_power.py", "--draws", "2"])
    script().main()
    printed = capsys.readouterr().out
    assert all(f"| `{key}` | {limit:g} |" in printed for key, limit in DEFAULT_LIMITS.items())
    assert "Unchanged models that ship: " in printed


@pytest.mark.slow
def test_simulated_verdicts_are_those_that_were_planned() -> None:
    """The verdict's own code on drawn answers, 10% of which differ: unchanged, at a limit, at twice the limit."""
    module = script()
    plans = module.planned(0.1)
    together = ships(plans)
    assert together is not None
    assert module.shipped(module.simulate(plans, {}, 300)) >= max(0.8, together[0]) - 0.05
    for gate in plans:
        draws = 2000 if gate.subject.kind == "rates" else 500
        assert module.shipped(module.simulate([gate], {gate.key: 1.0}, draws)) <= (0.03 if draws == 2000 else 0.045)
        assert module.shipped(module.simulate([gate], {gate.key: 2.0}, draws)) <= 0.001
        if gate.subject.kind == "rates" and gate.chances:
            assert module.shipped(module.simulate([gate], {}, draws)) == pytest.approx(gate.chances[0], abs=0.02)
