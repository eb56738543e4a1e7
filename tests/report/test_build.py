"""From files to a report: measures against independent arithmetic, the reward model's card, samples, stages."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from trueup.errors import DataError
from trueup.evaluation.items import Item, write_items
from trueup.evaluation.winrate import jointly_length_controlled
from trueup.pages.numbers import estimate
from trueup.report.build import build, read_measured
from trueup.report.report_schema import Difference, Measure, ReportNumber, StageRun
from trueup.report.rewardmodel import calibration, reward_card
from trueup.report.samples import samples
from trueup.report.scorecard import SPECS, Rows, at_equal_length, corrected, measures, paired, prepared, withheld
from trueup.report.stages import alarms, curves, outcomes, points, stage_run
from trueup.stats.intervals import mean, rate
from trueup.stats.paired import difference, weighted_difference


def spec(key: str):
    return next(one for one in SPECS if one.key == key)


def rows(**rights: list[float]) -> Rows:
    return {
        name: [Item("capability", f"q{at}", {"right": value}, topic="ab"[at % 2]) for at, value in enumerate(values)]
        for name, values in rights.items()
    }


def test_a_share_and_its_paired_difference() -> None:
    ours, theirs = [1.0, 0.0, 1.0, 1.0] * 10, [1.0, 1.0, 0.0, 1.0] * 10
    [capability] = [one for one in measures(rows(sft=theirs, ppo=ours), "sft", {}, {}, {}) if one.key == "capability"]
    expected = rate(30, 40)
    assert capability.values["ppo"].model_dump(exclude={"withheld"}) == expected.as_dict()
    told = difference(ours, theirs)
    got = capability.differences["ppo"]
    assert (got.value, got.low, got.high, got.p, got.test) == (told.value, told.low, told.high, told.p, told.test)
    assert got.shown is False
    assert set(capability.differences) == {"ppo"}


def test_topics_are_parts_of_the_whole() -> None:
    [capability] = [one for one in measures(rows(sft=[1.0, 0.0] * 8), "sft", {}, {}, {}) if one.key == "capability"]
    assert {topic.topic: topic.values["sft"].value for topic in capability.topics} == {"a": 1.0, "b": 0.0}
    assert sum(topic.values["sft"].n for topic in capability.topics) == capability.values["sft"].n


def test_items_are_matched_by_id_and_not_by_place() -> None:
    ours = [Item("capability", str(at), {"right": float(at < 5)}) for at in range(10)]
    theirs = [*reversed(ours), Item("capability", "only here", {"right": 1.0})]
    one = paired(spec("capability"), ours, theirs)
    assert one is not None
    assert (one.value, one.n) == (0.0, 10)


def test_nats_per_token_weigh_long_texts_more() -> None:
    """30 nats of 10 tokens and 100 of 50: 130 / 60, and not the mean of 3 and 2."""
    items = [
        Item("forgetting", "a", {"nats": 30.0, "tokens": 10.0}),
        Item("forgetting", "b", {"nats": 100.0, "tokens": 50.0}),
    ]
    more = [Item(one.task, f"{one.id}{at}", one.values) for one in items for at in range(6)]
    worse = [Item(one.task, one.id, {**one.values, "nats": one.values["nats"] * 1.1}) for one in more]
    [got] = [one for one in measures({"sft": more, "ppo": worse}, "sft", {}, {}, {}) if one.key == "forgetting"]
    assert got.values["sft"].value == pytest.approx(130 / 60)
    nats, other, tokens = (
        [one.values[key] for one in part] for part, key in ((worse, "nats"), (more, "nats"), (more, "tokens"))
    )
    assert got.differences["ppo"].value == pytest.approx(weighted_difference(nats, other, tokens).value)
    assert got.differences["ppo"].shown


def test_what_was_derived() -> None:
    items = prepared([
        Item("unsafe-compliance", "a", {"refused": 1.0}), Item("preferences", "b", {"margin": 0.0}),
        Item("preferences", "c", {"margin": -1.0}), Item("unsafe-compliance", "d", {}),
    ])  # fmt: skip
    assert [one.values.get("complied", one.values.get("won")) for one in items] == [0.0, 0.5, 0.0, None]


def test_too_few_items_have_no_difference() -> None:
    """Two equal differences of a mean: no interval has ends, so none is shown."""
    ours = [Item("answers", str(at), {"reward": 1.0 + at, "length": 3.0}) for at in range(2)]
    theirs = [Item("answers", str(at), {"reward": float(at), "length": 3.0}) for at in range(2)]
    assert paired(spec("reward"), ours, theirs) is None


def test_wins() -> None:
    won = [
        Item("win-rate", str(at), {"outcome": float(at < 30), "ours": 10.0 + at % 3, "theirs": 11.0})
        for at in range(40)
    ]
    unjudged = [Item("win-rate", f"x{at}", {"ours": 11.0, "theirs": 10.0}) for at in range(10)]

    def table(items: list[Item]) -> dict[str, Measure]:
        made = measures(rows(sft=[1.0], ppo=[1.0]), "sft", {"ppo": items}, {"ppo": "gold"}, {})
        return {measure.key: measure for measure in made}

    whole, part = table(won), table([*won, *unjudged])
    assert whole["win-rate"].values["ppo"].model_dump(exclude={"withheld"}) == rate(30, 40).as_dict()
    assert whole["win-rate"].note == "judged by gold; 0.5 is a draw"
    assert whole["win-rate-lc"].values["ppo"].n == 40
    assert whole["win-rate-lc"].title == "Length-adjusted win rate of a lone pair"
    assert "not the length-controlled win rate of AlpacaEval" in (whole["win-rate-lc"].note or "")
    # Ten verdicts are missing: 30 of 50 if all were lost, 40 of 50 if all were won.
    number = part["win-rate"].values["ppo"]
    assert (number.value, number.low, number.high, number.n) == (0.75, rate(30, 50).low, rate(40, 50).high, 50)
    assert "10 of 50 verdicts on ppo are missing" in (part["win-rate"].note or "")
    assert "left out (no gate uses this): 10 of 50 pairs of ppo" in (part["win-rate-lc"].note or "")


def test_three_candidates_are_length_controlled_jointly() -> None:
    """By name of the prompt: the second model's verdicts stand in another order, and one is missing."""
    generator = np.random.default_rng(0)
    wins = {}
    for name in ("dpo", "ppo", "kto"):
        longer, outcomes = generator.integers(-30, 20, 40), generator.integers(0, 2, 40)
        wins[name] = [
            Item("win-rate", str(at), {"outcome": float(outcomes[at]), "ours": 60.0 + longer[at], "theirs": 60.0})
            for at in range(40)
        ]
    columns = [
        [[item.values[key] for item in items] for items in wins.values()] for key in ("outcome", "ours", "theirs")
    ]
    expected = jointly_length_controlled(columns[0], columns[1], columns[2])
    wins["ppo"].reverse()
    made = {one.key: one for one in measures(rows(sft=[1.0], ppo=[1.0]), "sft", wins, {}, {})}["win-rate-lc"]
    assert made.title == "Length-controlled win rate"
    assert "Dubois" in (made.note or "")
    for name, result in zip(wins, expected, strict=True):
        assert result.rate is not None
        assert made.values[name].model_dump(exclude={"withheld"}) == pytest.approx(result.rate.as_dict())
    del wins["ppo"][0].values["outcome"]
    assert at_equal_length(wins)["ppo"].unjudged == 1


def test_missing_verdicts_widen_a_share_and_its_difference() -> None:
    """Ours: 4 of 8 judged prompts refused, 2 not judged, so 0.4 to 0.6 of 10; theirs: 0 of 10."""

    def asked(refused: list[float | None]) -> list[Item]:
        return prepared([
            Item("over-refusal", str(at), {} if value is None else {"refused": value})
            for at, value in enumerate(refused)
        ])  # fmt: skip

    ours, theirs = asked([1.0] * 4 + [0.0] * 4 + [None] * 2), asked([0.0] * 10)
    table = {measure.key: measure for measure in measures({"sft": theirs, "ppo": ours}, "sft", {}, {}, {})}
    number = table["over-refusal"].values["ppo"]
    assert (number.value, number.low, number.high, number.n) == (0.5, rate(4, 10).low, rate(6, 10).high, 10)
    change = table["over-refusal"].differences["ppo"]
    low, high = (difference([1.0] * 4 + [0.0] * 4 + [fill] * 2, [0.0] * 10) for fill in (0.0, 1.0))
    assert (change.value, change.low, change.high, change.n) == (0.5, low.low, high.high, 10)
    assert "2 of 10 verdicts on ppo are missing" in str(table["over-refusal"].note)


def test_answers_that_differ_by_one_length_have_no_controlled_rate() -> None:
    """Ours collapsed to the end token, theirs never end: what is owed to length cannot be told; the report stands."""
    won = [Item("win-rate", str(at), {"outcome": 0.0, "ours": 1.0, "theirs": 64.0}) for at in range(20)]
    made = {one.key for one in measures(rows(sft=[1.0], ppo=[1.0]), "sft", {"ppo": won}, {"ppo": "gold"}, {})}
    assert "win-rate" in made
    assert "win-rate-lc" not in made
    reasons = withheld(at_equal_length({"ppo": won}))
    assert list(reasons) == ["Length-adjusted win rate of a lone pair of ppo"]
    assert "every answer of ours is -63 in length" in reasons["Length-adjusted win rate of a lone pair of ppo"]


def test_one_item_has_no_mean() -> None:
    items = [Item("answers", "a", {"reward": 3.0, "length": 2.0, "ended": 1.0})]
    made = {one.key for one in measures({"sft": items}, "sft", {}, {}, {})}
    assert "reward" not in made
    assert "ended" in made  # a share has Wilson's interval


# ------------------------------------------------------------------ the reward model


def ranked(margins: list[float], longer: list[int]) -> list[Item]:
    return [
        Item("reward-model", str(at), {"margin": margin, "chosen_longer": float(more)})
        for at, (margin, more) in enumerate(zip(margins, longer, strict=True))
    ]


def test_accuracy_by_length() -> None:
    card = reward_card("rm", ranked([1.0, 1.0, -1.0, 0.0], [5, 5, -5, -5]))
    assert card.accuracy.value == 2.5 / 4  # a tie is half right
    assert card.chosen_longer is not None
    assert card.chosen_shorter is not None
    assert (card.chosen_longer.value, card.chosen_shorter.value) == (1.0, 0.25)


def test_calibration_by_hand() -> None:
    """40 pairs of margin ±1, right 3 times in 4: it says sigmoid(1) = 0.731 and is right in 0.75."""
    bins = calibration([1.0, 1.0, 1.0, -1.0] * 10)
    assert all(one.predicted == pytest.approx(1 / (1 + math.exp(-1))) for one in bins)
    assert sum(one.observed.n for one in bins) == 40
    card = reward_card("rm", ranked([1.0, 1.0, 1.0, -1.0] * 10, [1] * 40))
    right = sum(one.observed.value * one.observed.n for one in card.calibration)
    assert right == 30
    assert card.chosen_shorter is None


# ------------------------------------------------------------------ samples


def test_the_largest_changes_come_first_and_ties_stay() -> None:
    def answered(values: list[float]) -> list[Item]:
        return [
            Item("capability", str(at), {"right": one}, prompt=f"Q{at}", answer="x") for at, one in enumerate(values)
        ]

    shown = samples({"sft": answered([0.0, 1.0, 0.0, 1.0]), "ppo": answered([0.0, 0.0, 1.0, 1.0])}, "sft")
    assert [(one.prompt, one.change) for one in shown] == [("Q2", 1.0), ("Q1", -1.0), ("Q0", 0.0), ("Q3", 0.0)]
    assert set(shown[0].answers) == {"sft", "ppo"}


def test_a_new_refusal_of_an_innocent_prompt_is_a_loss() -> None:
    def asked(refused: float) -> list[Item]:
        return prepared([Item("over-refusal", "a", {"refused": refused}, prompt="Q", answer="x")])

    [one] = samples({"sft": asked(0.0), "ppo": asked(1.0)}, "sft")
    assert (one.change, one.by) == (-1.0, "answered")


# ------------------------------------------------------------------ a run folder


def test_a_stages_files(tmp_path: Path) -> None:
    folder = tmp_path / "ppo"
    folder.mkdir()
    log = [
        {"step": 0, "eval/gold": 0.5},
        {"step": 1, "ppo/reward": 1.0},
        {"step": 2, "ppo/reward": None, "eval/gold": 0.4},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    watched = {"step": 2, "items": {"kl": [1.0, 3.0], "reward": [0.0, 1.0], "gold": [1.0, 1.0]}}
    (folder / "watch.jsonl").write_text(json.dumps(watched) + "\n")
    (folder / "alarms.jsonl").write_text(json.dumps({"step": 2, "name": "n", "message": "m", "fix": "f"}) + "\n")
    (folder / "config.yaml").write_text(
        "model: base\nseed: 3\nprompts: {path: p.jsonl}\nreward: rm\nwatch: {gold: g.py:gold}\n"
    )
    (folder / "data.json").write_text(json.dumps({"prompts": {"read": 5, "used": 4}}))
    (folder / "summary.json").write_text(json.dumps({"method": "ppo", "steps": 2, "tokens": 9, "seconds": 1.5}))
    drawn = {one.key: (one.steps, one.values) for one in curves("ppo", folder)}
    assert drawn == {"eval/gold": ([0, 2], [0.5, 0.4]), "ppo/reward": ([1, 2], [1.0, None])}
    plan = {"against": "sft", "models": {"sft": {"source": "base"}}, "reward": "rm", "gold": "g.py:gold"}
    [point] = points("ppo", folder, plan)
    assert (point.step, point.kl, point.proxy, point.gold) == (2, 2.0, 0.5, 1.0)
    [point] = points("ppo", folder, plan | {"gold": "another"})
    assert (point.proxy, point.gold) == (0.5, None)  # another gold reward is another axis
    elsewhere = {"sft": {"source": "elsewhere"}}
    assert points("ppo", folder, plan | {"models": elsewhere}) == []  # and so is another KL
    assert alarms("ppo", folder)[0].fix == "f"
    run = stage_run("ppo", folder)
    assert (run.finished, run.method, run.base, run.seed, run.tokens) == (True, "ppo", "base", 3, 9)
    assert run.data == {"prompts": {"path": "p.jsonl", "read": 5, "used": 4}}
    (folder / "summary.json").unlink()
    assert stage_run("ppo", folder).finished is False


def test_models_that_did_not_move_or_fell_apart() -> None:
    """The limits: an interval of the KL with 0 in it, 20 nats, a tenth more repeats, a quarter of the entropy."""

    def of(**values: tuple[float, float, float]) -> dict[str, ReportNumber]:
        return {name: ReportNumber(value=v, low=low, high=high, n=9) for name, (v, low, high) in values.items()}

    def measure(key: str, **values: tuple[float, float, float]) -> Measure:
        return Measure(key=key, title=key, unit="", better="neither", values=of(**values))

    measured = [
        measure("kl", still=(0.1, -0.1, 0.3), far=(30, 25, 35), fine=(1, 0.5, 1.5), other=(0, 0, 0)),
        measure("repetition", sft=(0.0, 0.0, 0.1), far=(0.5, 0.4, 0.6), fine=(0.1, 0.0, 0.2)),
        measure("entropy", sft=(2.0, 1.9, 2.1), far=(0.1, 0.05, 0.2), fine=(1.0, 0.9, 1.1)),
    ]
    stages = [StageRun(name=name, method="dpo", finished=True, base="m", steps=7) for name in ("still", "far", "fine")]
    stages.append(StageRun(name="other", method="dpo", finished=True, base="another", steps=7))
    still, far = outcomes(measured, stages, "sft", "m")
    assert (still.stage, still.name, still.step) == ("still", "nothing-moved", 7)
    assert (far.stage, far.name) == ("far", "fell-apart")
    assert far.message == (
        "the trained model fell apart: its KL is 30 nats per answer; 50% of its trigrams are repeats, 0% of those of "
        "sft; its entropy is 0.1 nats per token, that of sft 2"
    )


def test_nothing_is_made_of_half_an_evaluation(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing was evaluated here; run `trueup run` or `trueup evaluate` first"):
        build(tmp_path)
    place = tmp_path / "evaluation"
    write_items(place / "sft.jsonl", [Item("capability", "a", {"right": 1.0})], {"key": "k"})
    plan = {
        "against": "sft",
        "models": {name: {"source": name, "file": f"{name}.jsonl", "wins": False} for name in ("sft", "ppo")},
        "candidates": [], "reward": None, "gold": None, "reward_file": None, "asked": {}, "settings": {}, "title": "t",
        "stages": [], "gates": None, "command": None, "not_measured": {}, "seconds": 1.0,
    }  # fmt: skip
    (place / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(DataError, match=r"ppo\.jsonl: missing, though plan\.json names it; evaluate again"):
        read_measured(place)


def test_means_have_the_bootstraps_interval() -> None:
    items = [Item("answers", str(at), {"reward": float(at % 5), "length": 1.0}) for at in range(50)]
    [reward] = [one for one in measures({"sft": items}, "sft", {}, {}, {}) if one.key == "reward"]
    assert reward.values["sft"].model_dump(exclude={"withheld"}) == mean([float(at % 5) for at in range(50)]).as_dict()


def comparison(p: float, value: float = 0.1) -> Difference:
    """A difference whose interval excludes 0 where p is 5% or below."""
    low = value / 2 if p <= 0.05 else -1.0
    return Difference(value=value, low=low, high=1.0, n=50, shown=p <= 0.05, p=p, test="paired bootstrap")


def table_of(*p_values: float) -> list[Measure]:
    return [
        Measure(key=f"m{at}", title="", unit="", better="higher", differences={"dpo": comparison(p)})
        for at, p in enumerate(p_values)
    ]


def test_words_are_corrected_for_the_number_of_differences() -> None:
    """Of 39 differences Holm needs 0.05 / 39 = 0.0013 for the first and 0.05 / 38 for the second."""
    measures = corrected(table_of(0.001, 0.0014, 0.0012, *[0.04] * 36))
    words = [measure.judgement(measure.differences["dpo"]) for measure in measures]
    assert words == ["better", "not shown", "better", *["not shown"] * 36]
    assert measures[0].differences["dpo"].adjusted == pytest.approx(0.039)
    alone = corrected(table_of(0.04))[0]
    assert alone.judgement(alone.differences["dpo"]) == "better"


def test_a_page_without_any_difference_seldom_finds_one() -> None:
    """Of 39 true null hypotheses 2 are shown alone; over 400 pages a word is on 5%, with an error of 1%."""
    generator = random.Random(0)
    pages = [corrected(table_of(*(generator.random() for _ in range(39)))) for _ in range(400)]
    assert sum(any(m.differences["dpo"].sure for m in page) for page in pages) / 400 < 0.085


def test_an_interval_that_is_withheld_is_null_with_the_reason() -> None:
    """Three of 60 answers hold nearly all of the KL, so its tail tells nothing of the mean."""
    values = [1.0 + 0.01 * at for at in range(57)] + [1000.0, 2000.0, 3000.0]
    rows = {"ppo": [Item("answers", str(at), {"kl": value}) for at, value in enumerate(values)]}
    [kl] = [one for one in measures(rows, "sft", {}, {}, {}) if one.key == "kl"]
    written = kl.values["ppo"].model_dump(mode="json")
    assert (written["low"], written["high"]) == (None, None)
    assert "too skewed to say: 3 of 60" in written["withheld"]
    assert ReportNumber.model_validate(written) == kl.values["ppo"]
    assert estimate(kl.values["ppo"]).endswith("[…, …]")
