"""Warnings while training: what each rule says of a made-up history, and that a run records and resumes them."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

import tiny_data
from trueup.config import DpoConfig, PpoConfig, load_config
from trueup.errors import ConfigError
from trueup.evaluation import watch
from trueup.evaluation.watch import Measurement, Watch, change, current_alarms
from trueup.runs.folder import RunFolder
from trueup.system.console import Progress

N = 100


def course(*means: dict[str, float], noise: float = 0.3, seed: int = 0) -> list[Measurement]:
    """Measurements of N prompts around given means; the same noise each time, and a little of its own."""
    rng = random.Random(seed)
    fixed = {name: [rng.gauss(0, noise) for _ in range(N)] for name in means[0]}
    return [
        Measurement(step, {
            name: [mean + shared + rng.gauss(0, noise / 5) for shared in fixed[name]] for name, mean in one.items()
        })
        for step, one in enumerate(means)
    ]  # fmt: skip


def names(history: list[Measurement], rules: Any) -> list[str]:
    return [alarm.name for alarm in current_alarms(history, rules)]


def test_change_is_the_paired_t_statistic() -> None:
    from scipy.stats import ttest_rel

    first, second = course({"gold": 0.5}, {"gold": 0.4})
    mean, errors = change(second, first, "gold")
    assert mean == pytest.approx(second.mean("gold") - first.mean("gold"))
    assert errors == pytest.approx(ttest_rel(second.items["gold"], first.items["gold"]).statistic)


def test_a_change_without_spread() -> None:
    one = [Measurement(index, {"x": [value] * 5}) for index, value in enumerate((1.0, 1.0, 3.0))]
    assert change(one[1], one[0], "x") == (0.0, 0.0)
    assert change(one[2], one[0], "x") == (2.0, math.inf)


def test_hacking_is_a_falling_gold_reward_under_a_rising_proxy() -> None:
    rising = course({"gold": 0.5, "reward": 0.0}, {"gold": 0.6, "reward": 0.5}, {"gold": 0.4, "reward": 1.0})
    assert names(rising, [watch.gold_falls]) == ["gold-falls"]
    message = current_alarms(rising, [watch.gold_falls])[0].message
    assert f"from {rising[1].mean('gold'):.2f} at step 1 to" in message  # its best, not its start
    assert "(n = 100, measurement 2" in message
    assert message.endswith("the reward is being hacked")
    noisy = course({"gold": 0.6, "reward": 0.5}, {"gold": 0.4, "reward": 0.501})
    assert current_alarms(noisy, [watch.gold_falls])[0].message.endswith("rose by 0.00, which may be chance")
    both_fall = course({"gold": 0.6, "reward": 0.5}, {"gold": 0.4, "reward": 0.1})
    assert names(both_fall, [watch.gold_falls]) == []
    [alone] = current_alarms(course({"gold": 0.6}, {"gold": 0.4}), [watch.gold_falls])
    assert "hacked" not in alone.message  # without a proxy to see it is only a fall
    sound = course({"gold": 0.5, "reward": 0.0}, {"gold": 0.6, "reward": 1.0})
    assert names(sound, [watch.gold_falls]) == []


def test_noise_raises_nothing() -> None:
    """Ten looks at a run that goes nowhere, 100 times: hardly ever a warning (tests/stats/test_looks.py has more)."""
    flat = {"gold": 0.5, "reward": 0.0, "length": 20.0, "repetition": 0.1, "kl": 0.1, "disagreement": 0.2}
    flagged = 0
    for seed in range(100):
        history = course(*[flat] * 10, seed=seed)
        flagged += any(current_alarms(history[: index + 1], watch.ppo_rules(None)) for index in range(len(history)))
    assert flagged <= 5


@pytest.mark.parametrize(
    ("rule", "then", "now", "name"),
    [
        (watch.length_grows, {"length": 20.0}, {"length": 32.0}, "length-grows"),
        (watch.length_grows, {"length": 20.0}, {"length": 28.0}, None),
        (watch.length_grows, {"length": 20.0, "gold": 0.5}, {"length": 26.0, "gold": 0.5}, "length-grows"),
        (watch.length_grows, {"length": 20.0, "gold": 0.2}, {"length": 30.0, "gold": 0.6}, None),  # it was worth it
        (watch.length_grows, {"length": 20.0, "gold": 0.5}, {"length": 30.0, "gold": 0.5}, "length-grows"),
        (watch.repeats, {"repetition": 0.0}, {"repetition": 0.3}, "repetition"),
        (watch.repeats, {"repetition": 0.0}, {"repetition": 0.05}, None),
        (watch.disagrees, {"disagreement": 0.2}, {"disagreement": 0.5}, "rewards-disagree"),
        (watch.disagrees, {"disagreement": 0.2}, {"disagreement": 0.25}, None),
        (watch.far_away(None), {"kl": 0.0}, {"kl": 25.0}, "kl-high"),
        (watch.far_away(None), {"kl": 0.0}, {"kl": 15.0}, None),
        (watch.far_away(4.0), {"kl": 0.0}, {"kl": 15.0}, "kl-high"),
        (watch.chosen_falls, {"chosen": 0.0, "rejected": 0.0}, {"chosen": -3.0, "rejected": -9.0}, "chosen-falls"),
        (watch.chosen_falls, {"chosen": 0.0, "rejected": 0.0}, {"chosen": 1.0, "rejected": -9.0}, None),
        (watch.chosen_falls, {"chosen": 0.0, "rejected": 0.0}, {"chosen": -9.0, "rejected": -3.0}, None),
    ],
)
def test_each_rule(rule: watch.Rule, then: dict[str, float], now: dict[str, float], name: str | None) -> None:
    assert names(course(then, now), [rule]) == ([] if name is None else [name])


def test_one_measurement_alone_raises_nothing() -> None:
    [first] = course({"gold": 0.5, "reward": 1.0, "length": 50.0, "repetition": 0.9, "kl": 0.0})
    assert current_alarms([first], watch.ppo_rules(None)) == []


def test_a_warning_is_written_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder.create(tmp_path / "run", "a: 1\n")
    history = course({"length": 20.0}, {"length": 40.0}, {"length": 50.0})
    for one in history:
        Watch(run, [watch.length_grows], Progress(), 200).see(
            one.step, one.items
        )  # a new Watch each time, as after a stop
    lines = (tmp_path / "run" / "alarms.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1]
    assert len((tmp_path / "run" / "watch.jsonl").read_text().splitlines()) == 3
    assert "warning: length-grows: answers grew 2.0x" in " ".join(capsys.readouterr().err.split())
    run.truncate_metrics(0)
    assert Watch(run, [watch.length_grows], Progress(), 200).see(1, history[1].items)[0].name == "length-grows"
    run.close()


# ------------------------------------------------------------------ in a run


GOLD = """
def score(conversations):
    return [-len(one.response) / 10 for one in conversations]
"""


def watched_ppo(tmp_path: Path, output: str = "run", **settings: Any) -> Any:
    gold = tmp_path / "gold.py"
    gold.write_text(GOLD)
    options = {
        "eval": {"data": tiny_data.data(tmp_path, "prompts", 8), "every": 2},
        "allow": ["eval-overlap"],
        "watch": {"gold": f"{gold}:score"},
        "optim": {"steps": 8, "lr": 1e-2, "batch_size": 4},
    }
    return tiny_data.stage("ppo", tmp_path, output, **tiny_data.merged(options, settings))


def test_ppo_measures_the_gold_reward_beside_the_proxy(tmp_path: Path) -> None:
    config = watched_ppo(tmp_path)
    tiny_data.run(config)
    log = [row for row in tiny_data.metrics(config) if "eval/gold" in row]
    assert [row["step"] for row in log] == [0, 2, 4, 6, 8]
    for row in log:
        assert row["eval/gold"] == pytest.approx(-row["eval/reward"])  # here gold is the proxy turned round
        assert {"eval/kl", "eval/length", "eval/repetition"} <= set(row)
    history = watch.read_history(tmp_path / "run" / "watch.jsonl")
    assert [one.step for one in history] == [0, 2, 4, 6, 8]
    assert {len(values) for one in history for values in one.items.values()} == {8}
    assert history[-1].mean("gold") == pytest.approx(log[-1]["eval/gold"])


COURSE = """
from pathlib import Path

def score(conversations):
    record = Path({record!r})
    count = len(record.read_text().splitlines()) if record.exists() else 0
    return [[0.2, 0.5, 0.9, 0.9, 0.85, 0.4, 0.1][min(count, 6)]] * len(conversations)
"""


def falling_ppo(tmp_path: Path, output: str, **settings: Any) -> Any:
    """A run of eight measurements whose gold reward rises and falls again, the same for all of 24 prompts."""
    gold = tmp_path / f"gold_{output}.py"
    gold.write_text(COURSE.format(record=str(tmp_path / output / "watch.jsonl")))
    options = {
        "eval": {"data": tiny_data.data(tmp_path, "prompts", 24), "every": 1}, "optim": {"steps": 8, "warmup": 0},
        "watch": {"gold": f"{gold}:score", "stop": "best-gold"},
    }  # fmt: skip
    return watched_ppo(tmp_path, output, **tiny_data.merged(options, settings))


def test_best_gold_ends_a_run_once_gold_has_clearly_fallen(tmp_path: Path) -> None:
    """Every prompt falls from step 2, the first of the best, to 4: p is 2^-24 x 6 comparisons x 8 looks / 0.8."""
    config = falling_ppo(tmp_path, "run")
    summary = tiny_data.run(config)
    log = [row for row in tiny_data.metrics(config) if "eval/gold" in row]
    assert [row["eval/gold"] for row in log] == pytest.approx([0.2, 0.5, 0.9, 0.9, 0.85])
    assert log[-1][f"eval/{watch.GOLD_FALL}"] == pytest.approx(2**-24 * 6 * 8 / 0.8)
    assert [row[f"eval/{watch.GOLD_FALL}"] for row in log[:-1]] == [1.0] * 4
    assert (summary["stopped_early"], summary["steps"]) == (True, 4)
    assert summary["last"]["eval/gold"] == pytest.approx(0.9)


@pytest.mark.slow
def test_best_gold_ends_a_stopped_run_at_the_same_step(tmp_path: Path) -> None:
    whole, parts = falling_ppo(tmp_path, "whole"), falling_ppo(tmp_path, "parts")
    tiny_data.run(whole)
    stops = 0
    while tiny_data.run_stopped(parts, 20):
        stops += 1
    assert stops >= 2
    assert tiny_data.result(parts) == tiny_data.result(whole)
    assert (tmp_path / "parts" / "watch.jsonl").read_bytes() == (tmp_path / "whole" / "watch.jsonl").read_bytes()


@pytest.mark.slow
def test_best_gold_with_patience_counts_measurements(tmp_path: Path) -> None:
    config = falling_ppo(tmp_path, "patient", eval={"patience": 3})
    assert tiny_data.run(config)["steps"] == 2 + 3
    assert not any(watch.GOLD_FALL in key for row in tiny_data.metrics(config) for key in row)


def test_too_few_prompts_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder.create(tmp_path / "run", "a: 1\n")
    seen = Watch(run, [watch.gold_falls], Progress(), 25)
    seen.see(0, {"gold": [1.0] * 15})
    text = " ".join(capsys.readouterr().err.split())
    assert "15 held-out prompts are too few" in text
    assert "at least 16 rows in eval.data" in text
    seen.see(1, {"gold": [0.0] * 15})
    assert "too few" not in capsys.readouterr().err  # once
    run.close()


def test_a_longer_run_spends_what_is_left(tmp_path: Path) -> None:
    """Three looks planned, then six: the record says so, and the later looks are judged more strictly."""
    run = RunFolder.create(tmp_path / "run", "a: 1\n")
    for step in range(4):
        Watch(run, [], Progress(), 3).see(step, {"gold": [float(step)] * 30})
    longer = Watch(run, [], Progress(), 6)
    longer.see(4, {"gold": [2.0] * 30})
    history = longer.history()
    assert [measurement.planned for measurement in history] == [3, 3, 3, 3, 6]
    strict, usual = watch._gold_fall(history), watch._gold_fall([Measurement(m.step, m.items, 6) for m in history])
    assert strict.p == pytest.approx(usual.p * (0.04 / 6) / (0.005 / 3))
    run.close()


def test_a_stopped_run_watches_on_with_the_same_bits(tmp_path: Path) -> None:
    whole = watched_ppo(tmp_path, "whole")
    tiny_data.run(whole)
    parts = watched_ppo(tmp_path, "parts")
    stops = 0
    while tiny_data.run_stopped(parts, 40):  # enough for an evaluation, which is begun again when stopped
        stops += 1
    assert stops >= 2
    assert tiny_data.result(parts) == tiny_data.result(whole)
    assert (tmp_path / "parts" / "watch.jsonl").read_bytes() == (tmp_path / "whole" / "watch.jsonl").read_bytes()


def test_dpo_watches_its_answers_and_its_chosen_side(tmp_path: Path) -> None:
    rankings = tiny_data.data(tmp_path, "rankings", 6)
    config = tiny_data.stage(
        "dpo", tmp_path, eval={"data": rankings, "every": 2}, allow=["eval-overlap"], optim={"steps": 6, "lr": 1e-2},
        watch={"reward": tiny_data.reward_function(tmp_path), "samples": 4, "max_new_tokens": 5},
    )  # fmt: skip
    tiny_data.run(config)
    log = [row for row in tiny_data.metrics(config) if "eval/kl" in row]
    assert [row["step"] for row in log] == [0, 2, 4, 6]
    assert log[0]["eval/kl"] == pytest.approx(0, abs=1e-4)
    assert log[0]["eval/chosen"] == pytest.approx(0, abs=1e-4)
    assert log[-1]["eval/n"] == 6  # the rankings; the sampled prompts are 4
    history = watch.read_history(tmp_path / "run" / "watch.jsonl")
    assert len(history[0].items["kl"]) == 4
    assert len(history[0].items["chosen"]) == 6
    assert "reward" in history[0].items


def test_dpo_warns_where_chosen_falls(tmp_path: Path) -> None:
    """The policy learns other answers: both sides of these held-out rankings become less likely, the longer more."""
    held_out = [
        {"prompt": f"Hi? {index}", "chosen": "YYYYYY", "rejected": "YYYYYYYYYYYYYYYYYYYY"} for index in range(8)
    ]
    config = tiny_data.stage(
        "dpo", tmp_path, watch={"samples": 0}, optim={"steps": 20, "lr": 1e-2}, loss={"name": "sigmoid", "beta": 0.05},
        eval={"data": tiny_data.write(tmp_path / "other.jsonl", held_out), "every": 5},
    )  # fmt: skip
    tiny_data.run(config)
    last = tiny_data.metrics(config)[-1]
    assert last["eval/rejected"] < last["eval/chosen"] < 0
    [alarm] = [json.loads(line) for line in (tmp_path / "run" / "alarms.jsonl").read_text().splitlines()]
    assert alarm["name"] == "chosen-falls"
    assert "loss dpop" in alarm["fix"]


# ------------------------------------------------------------------ configuration


BASE = ["model=m", "output=o", "prompts=p.jsonl", "reward=r"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["watch.gold=g"], "watch: has no effect: it watches the measurements on held-out rows; set eval.data"),
        (["eval.data=e.jsonl", "watch.stop=best-gold"], "watch.stop=best-gold: has no effect: there is no gold reward"),
        (
            ["eval.data=e.jsonl", "watch.gold=g", "watch.stop=best-gold"],
            "watch.stop=best-gold: it compares one measurement",
        ),
        (["rollouts.uncertainty=0.5"], "rollouts.uncertainty=0.5: the variance of one reward is 0"),
        (["reward=[]"], "reward=[]: must be text; got an empty value"),
    ],
)
def test_settings_that_cannot_work(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(PpoConfig, None, [*BASE, *settings])
    assert said in str(caught.value)


def test_one_reward_or_several() -> None:
    assert load_config(PpoConfig, None, BASE).rewards == ["r"]
    assert load_config(PpoConfig, None, [*BASE, "reward=[a, b]"]).rewards == ["a", "b"]
    config = load_config(DpoConfig, None, ["model=m", "output=o", "data=d.jsonl", "eval.data=e.jsonl", "watch.gold=g"])
    assert config.watch.gold == "g"
