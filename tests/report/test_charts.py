"""The pictures: deterministic, readable in words, in colours that the page decides, whatever the numbers."""

from __future__ import annotations

import math
import re

import pytest

from report import sample_report as samples
from trueup.pages.text import cleaned
from trueup.report.charts import looks_of, pictures
from trueup.report.curves import series, smoothed, thinned
from trueup.report.drawing import Look, Panel, axes, canvas, panel
from trueup.report.glyphs import strip
from trueup.report.report_schema import Curve, FrontierPoint, Measure, Topic


@pytest.fixture(scope="module")
def panels() -> dict[str, Panel]:
    drawn, missing = pictures(samples.full())
    assert missing == []
    return {f"{picture.key}/{one.group}/{one.heading}": one for picture in drawn for one in picture.panels}


def test_what_is_drawn() -> None:
    drawn, _ = pictures(samples.full())
    assert [(one.key, len(one.panels)) for one in drawn] == [
        ("frontier", 2), ("lengths", 1), ("training", 2), ("refusals", 2), ("tax", 2), ("reward-model", 2),
        ("learning", 13),
    ]  # fmt: skip
    learning = drawn[-1]
    assert [(name, len(found)) for name, found in learning.groups] == [
        ("sft", 3),
        ("reward", 3),
        ("dpo", 3),
        ("ppo", 4),
    ]


def test_the_same_numbers_give_the_same_bytes() -> None:
    first, second = (pictures(samples.full())[0] for _ in range(2))
    assert first == second


def test_every_panel_has_a_text_alternative_and_a_size(panels: dict[str, Panel]) -> None:
    for one in panels.values():
        assert re.match(r'<svg width="[\d.]+" height="[\d.]+" ', re.sub(r'viewBox="[^"]*" ', "", one.svg)) or (
            'width="' in one.svg[:200] and 'height="' in one.svg[:200]
        )
        assert 'role="img"' in one.svg
        assert "<title id=" in one.svg
        assert re.search(r"<desc id=[^>]*>[^<]*\d", one.svg)
        assert one.words


def test_colours_are_left_to_the_page(panels: dict[str, Panel]) -> None:
    for one in panels.values():
        colours = set(re.findall(r"#[0-9a-f]{6}", one.svg)) - {"#000000"}
        assert colours == set()
        assert "var(--" in one.svg
        assert "font-family" not in one.svg
        assert "<style" not in one.svg
        assert "metadata" not in one.svg


def test_letters_are_at_least_eleven_units(panels: dict[str, Panel]) -> None:
    for one in panels.values():
        assert all(float(size) >= 11 for size in re.findall(r"font-size: ([\d.]+)px", one.svg))


def test_the_words_say_the_numbers(panels: dict[str, Panel]) -> None:
    words = panels["frontier//Gold reward: an independent score"].words
    assert "ppo: at step 3 KL 0.5" in words
    assert "finished at KL 9.87, reward 0.602" in words
    tax = next(one.words for key, one in panels.items() if key.startswith("tax") and "Capability" in key)
    assert "all topics: base \u22120.229 [\u22120.250, \u22120.208], n 384, worse" in tax
    assert "ppo \u22120.067" in tax
    assert "Alarm at step 21: gold-falls." in panels["training//ppo"].words


def test_models_differ_without_colour() -> None:
    looks = [Look(index) for index in range(8)]
    assert len({(look.marker, str(look.dashes)) for look in looks}) == 8
    assert len({look.colour for look in looks}) == 8


def test_the_baseline_is_grey_wherever_it_stands() -> None:
    looks = looks_of(samples.full())
    assert looks["sft"].index == 0
    assert [looks[name].index for name in ("base", "dpo", "ppo")] == [1, 2, 3]


def test_a_difference_that_is_not_shown_is_hollow() -> None:
    def fills(half: float) -> list[str]:
        report = samples.empty()
        one = samples.difference(0.1, half, 50)
        report.models, report.against = ["a", "b"], "a"
        report.measures = [
            Measure(key="k", title="K", unit="u", better="higher", topics=[Topic(topic="t", differences={"b": one})])
        ]
        drawn, _ = pictures(report)
        return re.findall(r"<use[^>]*fill: (var\(--\w+\))", drawn[0].panels[0].svg)

    assert fills(0.05) == ["var(--m1)"]
    assert fills(0.5) == ["var(--card)"]


def test_what_cannot_be_drawn_is_named() -> None:
    report = samples.empty()
    drawn, missing = pictures(report)
    assert drawn == []
    assert all(one.what and one.why for one in missing)
    report.frontier = [FrontierPoint(model="a", step=None, kl=1.0, proxy=2.0)]
    drawn, _ = pictures(report)
    assert "gold reward was not measured" in drawn[0].caption


@pytest.mark.parametrize(
    "bad", [math.nan, *(pytest.param(one, marks=pytest.mark.slow) for one in (math.inf, -math.inf, 1e308))]
)
def test_numbers_that_are_none_do_not_break_it(bad: float) -> None:
    report = samples.full()
    report.frontier[0].kl = bad
    report.frontier[5].proxy = bad
    report.measures[2].topics[0].differences["ppo"].high = bad
    report.measures[4].values["ppo"].value = bad
    report.curves[0].values[10] = bad
    report.curves[1].values = [None] * len(report.curves[1].values)
    assert report.reward_model is not None
    report.reward_model.calibration[0].predicted = bad
    report.verdict.models["ppo"].gates[0].estimate = samples.mean(bad, 1.0, 3)
    drawn, _ = pictures(report)
    assert len(drawn) == 7
    assert strip(report.verdict.models["ppo"].gates[0]) == ""


def test_a_value_around_which_no_margin_has_room_is_not_drawn() -> None:
    """The range of -1e308 to 1e308 is infinite, and so are the axes' limits; a step is a whole number of any size."""
    values = [-1e308, 1.0, 1e308, None, math.nan, 2.0]
    curve = Curve(stage="s", key="loss", title="L", steps=[1, 2, 3, 4, 5, 10**400], values=values)
    assert series(curve) == [(2, 1.0)]


def test_one_point_everywhere() -> None:
    report = samples.empty()
    report.models = ["a"]
    report.frontier = [FrontierPoint(model="a", step=None, kl=0.0, proxy=0.0, gold=0.0)]
    report.curves = [
        Curve(stage="s", key="eval/gold", title="G", steps=[1], values=[0.0]),
        Curve(stage="s", key="loss", title="L", steps=[1], values=[2.0]),
    ]
    report.lengths = {"a": [0]}
    assert [one.key for one in pictures(report)[0]] == ["frontier", "lengths", "training", "learning"]


def test_hostile_names_are_drawn_as_text() -> None:
    drawn, _ = pictures(cleaned(samples.hostile()))
    text = " ".join(one.svg for picture in drawn for one in picture.panels)
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text
    assert "p\\u202epo &amp; $x^2$ _y" in text


def test_many_models_and_topics() -> None:
    report = samples.empty()
    report.models = [f"model {index}" for index in range(20)]
    report.against = "model 0"
    differences = {name: samples.difference(0.1, 0.2, 9) for name in report.models[1:]}
    topics = [Topic(topic=f"topic {index}", differences=differences) for index in range(40)]
    report.measures = [Measure(key="k", title="K", unit="u", better="higher", topics=topics)]
    drawn, _ = pictures(report)
    assert "The first 30 topics" in drawn[0].caption


def test_a_model_that_only_a_measure_names_is_drawn() -> None:
    report = samples.empty()
    topic = Topic(topic="t", differences={"b": samples.difference(0.1, 0.04, 9)})
    report.measures = [Measure(key="k", title="K", unit="u", better="neither", topics=[topic])]
    drawn, _ = pictures(report)
    assert drawn[0].legend == ["b"]
    assert "b +0.100 [+0.060, +0.140], n 9, higher" in drawn[0].panels[0].words


# -- curves ----------------------------------------------------------------------------------------------------------


def test_thinning_keeps_every_spike() -> None:
    points = [(step, 0.0) for step in range(10_000)]
    points[5_003] = (5_003, 9.0)
    points[7_777] = (7_777, -9.0)
    kept = thinned(points)
    assert len(kept) <= 250
    assert {points[0], points[-1], points[5_003], points[7_777]} <= set(kept)
    assert kept == sorted(kept)


def test_running_mean() -> None:
    """A constant stays; a line stays within its middle, where the window is symmetric."""
    assert smoothed([(step, 3.0) for step in range(100)]) == [(step, 3.0) for step in range(100)]
    line = smoothed([(step, float(step)) for step in range(200)])
    assert line[100] == (100, 100.0)


def test_text_is_not_mathematics() -> None:
    with canvas(100, 100) as figure:
        axes(figure, 10, 10, 10, 10).text(0, 0, "$x^2$ and $")
        drawn = panel(figure, "k", "heading <b>", "words & more")
    assert "$x^2$ and $" in drawn.svg
    assert "heading &lt;b&gt;" in drawn.svg


def _curve(key: str) -> Curve:
    return Curve(stage="s", key=key, title=key, steps=[1, 2], values=[0.0, 1.0])


def test_the_reward_on_held_out_prompts_is_the_proxy() -> None:
    report = samples.empty()
    report.curves = [_curve("ppo/reward"), _curve("eval/reward"), _curve("eval/gold")]
    drawn, _ = pictures(report)
    assert [one.key for one in drawn] == ["training", "learning"]
    assert "proxy: 0 at step 1" in drawn[0].panels[0].words
    assert [one.heading for one in drawn[1].panels] == ["ppo/reward"]


def test_held_out_values_share_the_panel_of_the_first_namesake() -> None:
    report = samples.empty()
    report.curves = [_curve("sft/loss"), _curve("mix/loss"), _curve("eval/loss")]
    drawn, _ = pictures(report)
    assert [one.words.count("at step 2") for one in drawn[0].panels] == [2, 1]
