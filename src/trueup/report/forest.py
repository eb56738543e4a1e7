"""Pictures of intervals in rows: the alignment tax by topic (a forest plot of what was lost), and refusals by model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trueup.pages.numbers import estimate
from trueup.pages.text import one_line
from trueup.report.drawing import (
    CHAR,
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
    note,
    panel,
    span,
)
from trueup.report.report_schema import Difference, Measure, Report, ReportMissing, ReportNumber, Topic

LABEL = 20
"""Characters of a row's label; the words under the picture have the whole name."""
_TOPICS = 30

TopicRow = tuple[Topic, dict[str, Difference]]


# -- rows with intervals ---------------------------------------------------------------------------------------------


def room_for(labels: Iterable[str]) -> float:
    """Return the left margin that the longest label needs, in units of the picture."""
    return 14 + CHAR * max((len(label) for label in labels), default=0)


def name_rows(area: Axes, positions: Sequence[float], labels: Sequence[str]) -> None:
    """Write the label of each row at its height in `positions`."""
    area.set_yticks(list(positions), list(labels))
    for text in area.get_yticklabels():
        text.set_color(INK)


def whisker(
    area: Axes, number: ReportNumber, y: float, look: Look, *, hollow: bool = False, upright: float | None = None
) -> None:
    """Draw a value with its interval: horizontal at height `y`, or vertical at the place `upright` if that is given.

    A hollow marker means that the difference is not shown.
    """
    ends, value = ([number.low, number.high], number.value)
    if upright is None:
        area.plot(ends, [y, y], color=look.colour, linewidth=2, solid_capstyle="butt")
        marker_place = ([value], [y])
    else:
        area.plot([upright, upright], ends, color=look.colour, linewidth=2, solid_capstyle="butt")
        marker_place = ([upright], [value])
    area.plot(
        *marker_place,
        marker=look.marker,
        markersize=8,
        markerfacecolor=PAPER if hollow else look.colour,
        markeredgecolor=look.colour,
        markeredgewidth=1.8,
        linestyle="none",
        clip_on=False,
    )


def tax(report: Report, looks: dict[str, Look]) -> Picture | ReportMissing:
    """Draw the alignment tax by topic: for every measure with topics a panel of each topic's paired differences.

    The differences are those of each model from the model that all are compared with. Without any, the reason is
    returned.
    """
    order = [name for name in looks if name != report.against]
    drawn: list[tuple[Measure, list[TopicRow]]] = []
    for measure in report.measures:
        rows = _rows(measure, order) if measure.topics else []
        if rows:
            drawn.append((measure, rows))
    if not drawn:
        return ReportMissing(what="tax by topic", why="no paired difference was measured topic by topic")
    against = one_line(report.against or "the baseline")
    panels = [
        _forest(f"tax{index}", measure, rows[: _TOPICS + 1], looks, against)
        for index, (measure, rows) in enumerate(drawn)
    ]
    caption = f"Paired differences from {against}, item by item, with 95% intervals; what "
    caption += f"{one_line(order[-1])} lost most comes first. "
    caption += "Filled: the interval leaves out zero. Hollow: not shown either way."
    if any(len(rows) > _TOPICS + 1 for _, rows in drawn):
        caption += f" The first {_TOPICS} topics; the tables have all."
    names = [name for name in order if any(name in differences for _, rows in drawn for _, differences in rows)]
    return Picture("tax", "The tax by topic", caption, panels, names)


def _rows(measure: Measure, order: Sequence[str]) -> list[TopicRow]:
    """Return the rows of a panel: all topics together, then each topic, first the one where the last model lost most.

    `order` names the models in the order of the pipeline.
    """
    every = Topic(topic="all topics", values=measure.values, differences=measure.differences)
    sense = -1 if measure.better == "lower" else 1

    def lost(row: TopicRow) -> float:
        differences = next((row[1][name].value for name in reversed(order) if name in row[1]), 0.0)
        return sense * differences

    rows = [(topic, _drawable(topic)) for topic in [every, *measure.topics]]
    rows = [(topic, differences) for topic, differences in rows if differences]
    return [*(row for row in rows if row[0] is every), *sorted((row for row in rows if row[0] is not every), key=lost)]


def _drawable(topic: Topic) -> dict[str, Difference]:
    return {
        name: difference
        for name, difference in topic.differences.items()
        if finite(difference.value, difference.low, difference.high)
    }


def _forest(key: str, measure: Measure, rows: list[TopicRow], looks: dict[str, Look], against: str) -> Panel:
    names = [name for name in looks if any(name in differences for _, differences in rows)]
    step = len(names) * 14 + 12
    labels = [one_line(topic.topic, LABEL) for topic, _ in rows]
    bounds = [
        bound
        for _, differences in rows
        for difference in differences.values()
        for bound in (difference.low, difference.high)
    ]
    with canvas(WIDTH, 30 + 44 + step * len(rows)) as figure:
        area = axes(figure, room_for(labels), 30, 14, 44, grid="x")
        area.set_xlim(*span([0.0, *bounds]))
        area.set_ylim(step * len(rows), 0)
        area.axvline(0, color=LINE, linewidth=1.4)
        if rows[0][0].topic == "all topics" and len(rows) > 1:
            area.axhline(step, color=LINE, linewidth=0.8)
        words: list[str] = []
        for index, (topic, differences) in enumerate(rows):
            for place, name in enumerate(names):
                if name in differences:
                    y = step * index + 13 + 14 * place
                    whisker(area, differences[name], y, looks[name], hollow=not differences[name].shown)
            words.append(_topic_words(measure, topic, differences))
        name_rows(area, [step * (index + 0.5) for index in range(len(rows))], labels)
        _directions(figure, area, measure)
        area.set_xlabel(f"difference from {one_line(against, 16)}", color=MUTED, loc="right", labelpad=4)
        return panel(figure, key, f"{one_line(measure.title)}, {one_line(measure.unit)}", " ".join(words))


def _directions(figure: Figure, area: Axes, measure: Measure) -> None:
    """Write above a plot of differences which side of zero is better, in words and arrows."""
    words = {"higher": ("worse", "better"), "lower": ("better", "worse"), "neither": ("less", "more")}
    left, right = words[measure.better]
    low, high = area.get_xlim()
    zero, box = -low / (high - low), area.get_position()
    top = 1 + 9 / (box.height * figure.get_figheight() * 72)
    width = box.width * WIDTH
    # The word of a side that is too narrow for it would leave the picture.
    if zero * width > 58:
        note(area, zero - 6 / width, top, f"← {left}", align="right")
    if (1 - zero) * width > 58:
        note(area, zero + 6 / width, top, f"{right} →")


def _topic_words(measure: Measure, topic: Topic, differences: dict[str, Difference]) -> str:
    parts = [
        f"{one_line(name)} {estimate(difference, sign=True)}, n {difference.n}, {measure.judgement(difference)}"
        for name, difference in differences.items()
    ]
    return f"{one_line(topic.topic)}: {'; '.join(parts)}."


# -- refusals --------------------------------------------------------------------------------------------------------


def refusals(report: Report, looks: dict[str, Look]) -> Picture | ReportMissing:
    """Draw the rates of over-refusal and of compliance with unsafe requests, each model with its interval."""
    measures = [
        measure
        for measure in report.measures
        if is_refusal(measure) and any(drawable(value) for value in measure.values.values())
    ]
    if not measures:
        return ReportMissing(what="over-refusal and unsafe compliance", why="no refusal was measured")
    panels = [_dots(f"refusal{index}", measure, looks) for index, measure in enumerate(measures)]
    caption = (
        "Shares with 95% intervals, each model on the same requests. Refusing what is harmless and answering what "
    )
    caption += "is harmful are two errors; one is easily bought with the other."
    return Picture("refusals", "Refusals", caption, panels, layout="stacked")


def is_refusal(measure: Measure) -> bool:
    """Return True if a measure is about over-refusal or unsafe compliance, by its key."""
    key = measure.key.lower().replace("_", "-")
    return "refusal" in key or "unsafe" in key


def drawable(number: ReportNumber) -> bool:
    """Return True if a number and its interval are finite."""
    return finite(number.value, number.low, number.high)


def _dots(key: str, measure: Measure, looks: dict[str, Look]) -> Panel:
    values = {name: measure.values[name] for name in looks if name in measure.values and drawable(measure.values[name])}
    labels = [one_line(name, LABEL) for name in values]
    step = 30
    with canvas(WIDTH, 12 + 44 + step * len(values)) as figure:
        area = axes(figure, room_for(labels), 12, 16, 44, grid="x")
        area.set_xlim(-0.02 if all(number.low >= 0 for number in values.values()) else None, None)
        area.set_ylim(step * len(values), 0)
        for index, (name, number) in enumerate(values.items()):
            whisker(area, number, step * (index + 0.5), looks[name])
        name_rows(area, [step * (index + 0.5) for index in range(len(values))], labels)
        area.set_xlabel(one_line(measure.unit, 36), color=MUTED, loc="right", labelpad=4)
        words = "; ".join(f"{one_line(name)} {estimate(number)}, n {number.n}" for name, number in values.items())
        return panel(figure, key, one_line(measure.title), f"{words}.")
