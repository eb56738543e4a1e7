"""The pictures of training: proxy and gold reward over steps, and the learning curves of each stage."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from trueup.pages.numbers import plain
from trueup.pages.text import one_line
from trueup.report.drawing import (
    LINE,
    MUTED,
    WIDTH,
    Look,
    Panel,
    Picture,
    axes,
    canvas,
    finite,
    fit_numbers,
    note,
    panel,
    span,
)
from trueup.report.report_schema import Curve, Report, ReportAlarm, ReportMissing

_POINTS = 240
_SMOOTHED = 60
"""From so many points on, a running mean is drawn over the faint values."""
_SMALL = 280.0
_TRAIN, _HELD_OUT = Look(1), Look(2)
_PROXY, _GOLD = _TRAIN, _HELD_OUT
Series = list[tuple[int, float]]


def series(curve: Curve) -> Series:
    """Return the points (step, value) of a curve that can be drawn."""
    return [
        (step, value)
        for step, value in zip(curve.steps, curve.values, strict=False)
        if value is not None and finite(step, value)
    ]


def thinned(points: Series) -> Series:
    """Return at most about 240 points of a curve: the smallest and largest of each stretch, so no spike is lost."""
    if len(points) <= _POINTS:
        return points
    size = math.ceil(2 * len(points) / _POINTS)
    kept: set[tuple[int, float]] = {points[0], points[-1]}
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        kept |= {min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])}
    return sorted(kept)


def smoothed(points: Series) -> Series:
    """Return the curve's running mean, centred, over a twentieth of its points; at the ends over those that exist."""
    half = max(1, len(points) // 40)
    means: Series = []
    for index, (step, _) in enumerate(points):
        part = [value for _, value in points[max(0, index - half) : index + half + 1]]
        means.append((step, math.fsum(part) / len(part)))
    return means


def last_part(key: str) -> str:
    """Return the last part of a metric's key in lower case: `eval/gold` gives `gold`."""
    return key.rsplit("/", 1)[-1].lower()


def is_reward(curve: Curve) -> str | None:
    """Return "proxy" or "gold" if the curve is of that reward, else None.

    The reward on held-out prompts is the proxy.
    """
    if curve.key == "eval/reward":
        return "proxy"
    return next((kind for kind in ("proxy", "gold") if last_part(curve.key).endswith(kind)), None)


def _words(name: str, points: Series) -> str:
    low, high = min(value for _, value in points), max(value for _, value in points)
    (first, begin), (last, end) = points[0], points[-1]
    return (
        f"{one_line(name)}: {plain(begin)} at step {first}, {plain(end)} at step {last}, "
        f"between {plain(low)} and {plain(high)}."
    )


# -- proxy and gold --------------------------------------------------------------------------------------------------


def training(report: Report) -> Picture | ReportMissing:
    """Draw proxy and gold reward over training steps, one panel for each stage, with alarms marked at their steps."""
    stages: dict[str, dict[str, Series]] = {}
    for curve in report.curves:
        kind = is_reward(curve)
        if kind is not None and (points := series(curve)):
            stages.setdefault(curve.stage, {})[kind] = points
    if not stages:
        return ReportMissing(what="proxy and gold reward over training", why="no stage recorded either")
    panels = [
        _training_panel(f"training{index}", stage, rewards, [alarm for alarm in report.alarms if alarm.stage == stage])
        for index, (stage, rewards) in enumerate(stages.items())
    ]
    caption = "The reward that training pushed, and below it an independent score of the same answers, on one axis of "
    caption += "steps. Each has its own scale."
    if any(alarm.stage in stages for alarm in report.alarms):
        caption += " Dotted upright lines: alarms."
    watched = [f"{one_line(run.name)} on {run.watched}" for run in report.stages if run.watched and run.name in stages]
    if watched:
        caption += f" Watched: {'; '.join(watched)} (at most 5% false alarms of each kind over all of them)."
    absent = [stage for stage, rewards in stages.items() if len(rewards) < 2]
    if absent:
        caption += f" Only one of the two was recorded in {', '.join(one_line(stage) for stage in absent)}."
    return Picture("training", "Proxy and gold while training", caption, panels)


def _training_panel(key: str, stage: str, rewards: dict[str, Series], alarms: Sequence[ReportAlarm]) -> Panel:
    kinds = [kind for kind in ("proxy", "gold") if kind in rewards]
    each, words = 150.0 if len(kinds) == 1 else 118.0, []
    steps = [step for points in rewards.values() for step, _ in points]
    limits = span([float(step) for step in steps], 0.02)
    with canvas(WIDTH, 26 + each * len(kinds) + 22) as figure:
        areas = [axes(figure, 50, 26 + each * at, 14, each * (len(kinds) - 1 - at) + 46) for at in range(len(kinds))]
        for kind, area in zip(kinds, areas, strict=True):
            area.set_xlim(*limits)
            area.set_ylim(*span([value for _, value in rewards[kind]]))
            _line(area, rewards[kind], _PROXY if kind == "proxy" else _GOLD)
            for alarm in alarms:
                area.axvline(alarm.step, color=MUTED, linewidth=1.4, linestyle=(0, (1.5, 2)))
            area.tick_params(labelbottom=area is areas[-1])
            note(area, 0, 1.09, f"{kind} reward")
            words.append(_words(kind, rewards[kind]))
        areas[-1].set_xlabel("step", color=MUTED, loc="right", labelpad=2)
        fit_numbers(figure, *areas)
        words += [f"Alarm at step {alarm.step}: {one_line(alarm.name)}." for alarm in alarms]
        return panel(figure, key, one_line(stage), " ".join(words))


def _line(area: Axes, points: Series, look: Look, *, marked: bool = False) -> None:
    """Draw a curve; one of many points is drawn faint, under its running mean.

    `marked` draws a marker at every point.
    """
    many = len(points) >= _SMOOTHED and not marked
    thin = thinned(points)
    area.plot(
        *zip(*thin, strict=True),
        color=look.colour,
        linestyle="-" if many or look is _TRAIN else look.dashes,
        linewidth=1.0 if many else 1.8,
        alpha=0.35 if many else 1.0,
    )
    if many:
        area.plot(*zip(*thinned(smoothed(points)), strict=True), color=look.colour, linewidth=2.0)
    elif marked or len(points) <= 16:
        area.plot(*zip(*points, strict=True), color=look.colour, linestyle="none", marker=look.marker, markersize=5)


# -- learning curves -------------------------------------------------------------------------------------------------


def learning(report: Report) -> Picture | ReportMissing:
    """Draw the learning curves as small panels, a row for each stage.

    A curve on held-out data shares the panel of the training curve of the same name.
    """
    stages: dict[str, dict[str, list[Curve]]] = {}
    for curve in report.curves:
        if is_reward(curve) is None and series(curve):
            stages.setdefault(curve.stage, {}).setdefault(last_part(curve.key), []).append(curve)
    if not stages:
        return ReportMissing(what="learning curves", why="no stage recorded any")
    drawn = [together for groups in stages.values() for curves in groups.values() for together in _together(curves)]
    caption = "Over optimizer steps. Where there are many, the strong line is a running mean over the faint values."
    if any(len(together) == 2 for together in drawn):
        caption += " Triangles on a broken line: the same on held-out rows."
    panels = [_small(f"learning{index}", together) for index, together in enumerate(drawn)]
    return Picture("learning", "Learning curves", caption, panels, layout="rows")


def _together(curves: list[Curve]) -> list[list[Curve]]:
    """Return the curves of each panel: a training curve with its held-out curve, any other curve alone."""
    held_out = [curve for curve in curves if curve.key.startswith("eval/")]
    others = [curve for curve in curves if not curve.key.startswith("eval/")]
    if len(held_out) == 1 and others:
        return [[others[0], held_out[0]], *([curve] for curve in others[1:])]
    return [[curve] for curve in curves]


def _small(key: str, curves: list[Curve]) -> Panel:
    drawn = [(curve, series(curve)) for curve in curves]
    with canvas(_SMALL, 168) as figure:
        area = axes(figure, 50, 10, 12, 42)
        area.set_xlim(*span([float(step) for _, points in drawn for step, _ in points], 0.03))
        area.set_ylim(*span([value for _, points in drawn for _, value in points]))
        fit_numbers(figure, area)
        if area.get_ylim()[0] < 0 < area.get_ylim()[1]:
            area.axhline(0, color=LINE, linewidth=1)
        for curve, points in drawn:
            held_out = curve.key.startswith("eval/")
            _line(area, points, _HELD_OUT if held_out else _TRAIN, marked=held_out)
        area.set_xlabel("step", color=MUTED, loc="right", labelpad=2)
        words = " ".join(_words(curve.title, points) for curve, points in drawn)
        return panel(figure, key, one_line(drawn[0][0].title), words, group=one_line(curves[0].stage))
