"""Pictures of the models: reward against KL (the frontier), alignment tax by topic, refusals, lengths, reward model.

Each function that draws a picture returns it, or a `ReportMissing` with the reason why there is none.

Each builder returns a picture, or a `ReportMissing` with the reason.
"""

from __future__ import annotations

from matplotlib.axes import Axes

from trueup.pages.numbers import estimate, fixed, plain
from trueup.pages.text import one_line
from trueup.report.curves import learning, training
from trueup.report.drawing import (
    FONT,
    INK,
    LINE,
    MUTED,
    PAPER,
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
from trueup.report.forest import LABEL, drawable, name_rows, refusals, room_for, tax, whisker
from trueup.report.report_schema import FrontierPoint, Report, ReportMissing, ReportNumber
from trueup.report.view import columns


def pictures(report: Report) -> tuple[list[Picture], list[ReportMissing]]:
    """Return every picture that has data, in the page's order, and for each other one why it is missing."""
    looks = looks_of(report)
    results = [
        frontier(report, looks),
        lengths(report, looks),
        training(report),
        refusals(report, looks),
        tax(report, looks),
        reward_model(report),
        reward_sets(report),
        learning(report),
    ]
    return [result for result in results if isinstance(result, Picture)], [
        result for result in results if isinstance(result, ReportMissing)
    ]


def looks_of(report: Report) -> dict[str, Look]:
    """Return the look (colour, marker, line) of each model: the one compared with in grey, the others in order."""
    names = list(dict.fromkeys([*columns(report), *(point.model for point in report.frontier), *report.lengths]))
    first = [report.against] if report.against is not None else []
    others = [name for name in names if name != report.against]
    # Grey stays free where nothing is compared against.
    return {name: Look(index) for index, name in enumerate([*first, *others], start=0 if first else 1)}


# -- reward against KL -----------------------------------------------------------------------------------------------


def frontier(report: Report, looks: dict[str, Look]) -> Picture | ReportMissing:
    """Draw reward against KL: training steps as small markers along a line, the finished model as a large one."""
    panels: list[Panel] = []
    absent: list[str] = []
    for kind, heading in (
        ("proxy", "Proxy reward: what training pushed"),
        ("gold", "Gold reward: an independent score"),
    ):
        points = [(point, getattr(point, kind)) for point in report.frontier if finite(point.kl, getattr(point, kind))]
        if points:
            panels.append(_frontier_panel(kind, heading, points, looks))
        else:
            absent.append(f"The {kind} reward was not measured here.")
    if not panels:
        return ReportMissing(what="reward against KL", why="no model has both a KL and a reward")
    caption = (
        "How far each model went from the reference, and what it gained. Small markers: measured in training, on the "
        "prompts of eval.data. Large marker: the finished model. Where proxy still climbs and gold falls, training is "
        "gaming its reward."
    )
    names = list(dict.fromkeys(point.model for point in report.frontier))
    return Picture("frontier", "Reward against KL", " ".join([caption, *absent]), panels, names)


def _frontier_panel(
    kind: str, heading: str, points: list[tuple[FrontierPoint, float]], looks: dict[str, Look]
) -> Panel:
    with canvas(WIDTH, 300) as figure:
        area = axes(figure, 50, 24, 14, 46)
        area.set_xlim(*span([0.0, *(point.kl for point, _ in points)], 0.06))
        area.set_ylim(*span([value for _, value in points]))
        fit_numbers(figure, area)
        words: list[str] = []
        for name in dict.fromkeys(point.model for point, _ in points):
            mine = [(point, value) for point, value in points if point.model == name]
            path = sorted((pair for pair in mine if pair[0].step is not None), key=lambda pair: pair[0].step or 0)
            ends = [pair for pair in mine if pair[0].step is None]
            _route(area, path, ends, looks[name])
            words.append(_route_words(name, path, ends))
        note(area, 0, 1.03, f"{kind} reward")
        note(area, 1, -0.17, "KL from the reference, nats", align="right")
        return panel(figure, f"frontier-{kind}", heading, " ".join(words))


def _route(
    area: Axes, path: list[tuple[FrontierPoint, float]], ends: list[tuple[FrontierPoint, float]], look: Look
) -> None:
    line = [*path, *ends[:1]] if path else []
    area.plot(
        [point.kl for point, _ in line],
        [value for _, value in line],
        color=look.colour,
        linestyle=look.dashes,
        linewidth=1.6,
    )
    for chosen, size, edge in ((path, 6.0, 0.8), (ends, 11.0, 1.6)):
        area.plot(
            [point.kl for point, _ in chosen],
            [value for _, value in chosen],
            linestyle="none",
            marker=look.marker,
            markersize=size,
            color=look.colour,
            markeredgecolor=PAPER,
            markeredgewidth=edge,
            clip_on=False,
        )


def _route_words(name: str, path: list[tuple[FrontierPoint, float]], ends: list[tuple[FrontierPoint, float]]) -> str:
    parts = [
        f"at step {point.step} KL {plain(point.kl)}, reward {plain(value)}"
        for point, value in (path[:1] + path[1:][-1:])
    ]
    parts += [f"finished at KL {plain(point.kl)}, reward {plain(value)}" for point, value in ends]
    return f"{one_line(name)}: {'; '.join(parts)}."


# -- lengths ---------------------------------------------------------------------------------------------------------


def lengths(report: Report, looks: dict[str, Look]) -> Picture | ReportMissing:
    """Draw a histogram of answer lengths for each model, one below the other on one axis."""
    found = {name: report.lengths[name] for name in looks if report.lengths.get(name)}
    if not found:
        return ReportMissing(what="answer lengths", why="no answer was sampled")
    histograms = _histograms(found, looks)
    caption = "Tokens of each answer to the same prompts, on one axis. The upright line marks the median."
    return Picture("lengths", "Answer length", caption, [histograms])


def _histograms(lengths: dict[str, list[int]], looks: dict[str, Look]) -> Panel:
    longest = max(max(values) for values in lengths.values())
    width = max(1, -(-(longest + 1) // 24))
    edges = list(range(0, longest + width + 1, width))
    height, words = 62.0, []
    with canvas(WIDTH, height * len(lengths) + 42) as figure:
        for index, (name, values) in enumerate(lengths.items()):
            last = index == len(lengths) - 1
            area = axes(figure, 14, height * index + 22, 14, 42 + height * (len(lengths) - 1 - index), grid="none")
            area.set_xlim(0, edges[-1])
            area.hist(values, bins=edges, color=looks[name].colour, alpha=0.5, edgecolor=looks[name].colour)
            area.set_yticks([])
            area.spines["bottom"].set(visible=True, color=LINE)
            middle = sorted(values)[len(values) // 2]
            area.axvline(middle, color=INK, linewidth=1.6)
            area.tick_params(labelbottom=last)
            label = f"{one_line(name, LABEL)}: median {middle}, n {len(values):,}"
            note(area, 0, 1.12, label, colour=INK)
            words.append(
                f"{one_line(name)}: median {middle} tokens, from {min(values)} to {max(values)}, n {len(values)}."
            )
            if last:
                area.set_xlabel("tokens", color=MUTED, loc="right", labelpad=4)
        return panel(figure, "lengths", "Tokens an answer", " ".join(words))


# -- reward model ----------------------------------------------------------------------------------------------------


def reward_model(report: Report) -> Picture | ReportMissing:
    """Draw the reward model's calibration, and its accuracy where the better answer is longer or shorter."""
    card = report.reward_model
    if card is None:
        return ReportMissing(what="reward model's calibration", why="there is no reward model, or no held-out rankings")
    rows = [
        ("all rankings", card.accuracy),
        ("chosen longer", card.chosen_longer),
        ("chosen shorter", card.chosen_shorter),
    ]
    panels = [
        _accuracy(
            "reward-accuracy",
            "Accuracy, and length",
            [(name, number) for name, number in rows if number is not None and drawable(number)],
        )
    ]
    bins = [
        (number.predicted, number.observed)
        for number in card.calibration
        if finite(number.predicted) and drawable(number.observed)
    ]
    caption = "On held-out rankings, with 95% intervals. "
    if bins:
        panels.insert(0, _calibration(bins))
        caption += "On the diagonal the model is as sure as it is right; below it, too sure. "
        if card.calibration_error is not None:
            caption += f"Expected calibration error: {fixed(card.calibration_error, 3)}. "
    else:
        caption += "Its calibration was not measured. "
    caption += "A model that is right only where the better answer is longer has learned length."
    return Picture("reward-model", f"Reward model: {one_line(card.name)}", caption, panels, layout="stacked")


def reward_sets(report: Report) -> Picture | None:
    """Draw the reward model's scores on published sets and their parts; None where it was measured on none."""
    rows = [
        (name, number)
        for published in report.reward_sets
        for name, number in ((published.title, published.score), *published.parts.items())
        if drawable(number)
    ]
    if not rows:
        return None
    caption = "; ".join(f"{published.title}: {published.unit}, {published.note}" for published in report.reward_sets)
    return Picture(
        "reward-sets",
        "Reward model on published sets",
        f"{caption}.",
        [_accuracy("reward-set-scores", "Scores", rows)],
        layout="stacked",
    )


_REWARD = Look(1)


def _calibration(bins: list[tuple[float, ReportNumber]]) -> Panel:
    with canvas(WIDTH, 300) as figure:
        area = axes(figure, 50, 24, 14, 46)
        low = min([0.5, *(predicted for predicted, _ in bins), *(observed.low for _, observed in bins)])
        low = 0.0 if low < 0.4 else low - 0.03
        area.set_xlim(low, 1.02)
        area.set_ylim(low, 1.02)
        area.plot([low, 1], [low, 1], color=LINE, linewidth=1.2, linestyle=(0, (4, 3)))
        area.plot(
            [predicted for predicted, _ in bins],
            [observed.value for _, observed in bins],
            color=_REWARD.colour,
            linewidth=1.2,
        )
        for predicted, observed in bins:
            whisker(area, observed, 0, _REWARD, upright=predicted)
        note(area, 0, 1.03, "share in which chosen won")
        note(area, 1, -0.17, "predicted probability that it wins", align="right")
        parts = [
            f"predicted {fixed(predicted, 2)}, observed {estimate(observed)}, n {observed.n}"
            for predicted, observed in bins
        ]
        return panel(figure, "calibration", "Calibration", f"{'; '.join(parts)}.")


def _accuracy(key: str, title: str, rows: list[tuple[str, ReportNumber]]) -> Panel:
    step = 44
    with canvas(WIDTH, 24 + 44 + step * len(rows)) as figure:
        area = axes(figure, room_for(name for name, _ in rows), 24, 16, 44, grid="x")
        area.set_xlim(min([0.45, *(number.low - 0.03 for _, number in rows)]), 1.02)
        area.set_ylim(step * len(rows), 0)
        area.axvline(0.5, color=LINE, linewidth=1.4, linestyle=(0, (4, 3)))
        for index, (_, number) in enumerate(rows):
            whisker(area, number, step * (index + 0.5), _REWARD)
        name_rows(area, [step * (index + 0.5) for index in range(len(rows))], [name for name, _ in rows])
        area.set_xlabel("share ranked right; dashed: chance", color=MUTED, loc="right", labelpad=4, fontsize=FONT)
        parts = [f"{name} {estimate(number)}, n {number.n}" for name, number in rows]
        return panel(figure, key, title, f"{'; '.join(parts)}.")
