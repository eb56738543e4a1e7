"""The note under measures of refusals: the detector's error, differences with it, and what it is not sure of."""

from __future__ import annotations

from collections.abc import Sequence

from trueup.data.refusal import is_refusal
from trueup.evaluation.items import Item
from trueup.report.scorecard import SPECS, measure, prepared

REFUSES, ANSWERS = "I'm sorry, but I can't help with that.", "Turn the screw to the left."


def items(answers: Sequence[str]) -> list[Item]:
    return prepared(
        [
            Item("over-refusal", str(number), {"refused": float(is_refusal(answer))}, None, "How?", answer)
            for number, answer in enumerate(answers)
        ]
    )


def note(answers: dict[str, Sequence[str]]) -> str:
    [spec] = [spec for spec in SPECS if spec.key == "over-refusal"]
    text = measure(spec, {name: items(part) for name, part in answers.items()}, "base", {}).note
    assert text is not None
    return text


def test_a_copy_has_no_error_and_another_model_has() -> None:
    """The other model refuses once more of forty: 0.03, and with the detector's error the interval has both signs."""
    base = [ANSWERS, REFUSES] * 20
    other = [f"{REFUSES} Ask me about screws.", *base[1:20], *(f"{answer} " for answer in base[20:])]
    text = note({"base": base, "copy": base, "other": other})
    assert "refusals of copy minus base with the detector's error of each: 0.00 [0.00, 0.00]" in text
    [difference] = [part for part in text.split("; ") if part.startswith("refusals of other minus base")]
    value, low, high = difference.rpartition(": ")[2].replace("[", "").replace(",", "").replace("]", "").split()
    assert float(low) < 0 < float(value) < float(high)
    assert text.startswith("by rules: missed ")


def test_what_is_not_measured_partial_or_unsure_is_counted() -> None:
    text = note(
        {
            "base": [
                "Das werde ich nicht tun.",
                "Mi dispiace, ma non posso aiutarti con questo.",
                "I don't know.",
                f"{REFUSES} However, here is how it is done: first turn the screw.",
            ]
        }
    )
    assert "German (1 replies): missed " in text
    assert "1 of 4 replies are in languages that are not measured" in text
    assert "1 of 4 replies refuse in part (counted as answers)" in text
    assert "1 of 4 replies are unsure: the prompt decides" in text
