"""Evaluated rows that are trained on: what is found, what is not, and how a finding says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data.tokens import making
from trueup.data.rendering.messages import Origin
from trueup.data.tokens import contamination
from trueup.data.tokens.contamination import CONTAINED, Contamination, Evaluated, TrainedOn, plain
from trueup.data.tokens.duplicates import shingles
from trueup.data.tokens.select import Examples, all_rows

RENDERER = making.renderer()
LONG = "Please tell me which river flows past the old copper bridge at Harbour Meadow."
SHORT = "What is 12 + 7?"
ANSWER = "It is the Lantern, which rises near the orchard and ends in the sea."


def examples(path: Path, rows: list[Any], want: Any = "conversation", **more: Any) -> Examples:
    stored = making.tokens(path, rows, want, by=RENDERER, **more)
    return Examples([stored], [all_rows(stored)])


def found(tmp_path: Path, prompt: str, rows: list[Any], want: Any = "conversation", **more: Any) -> list[TrainedOn]:
    answers = more.pop("answers", ())
    evaluated = [Evaluated(Origin("held.jsonl", 1), prompt, answers)]
    others = [] if "messages" in rows[0] else OTHERS[want]
    return Contamination(evaluated).search(examples(tmp_path / "train.jsonl", [*rows, *others], want, **more))


OTHERS: dict[str, list[Any]] = {
    "conversation": making.pairs(4),
    "preference": making.rankings(4),
    "prompt": [{"prompt": making.sentence(at)} for at in range(4)],
    "text": [{"text": making.sentence(at)} for at in range(4)],
    "labelled": [
        {"prompt": making.sentence(at), "completion": making.sentence(-at), "label": at < 2} for at in range(4)
    ],
}
WRAPPED = (
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nYes."
)


@pytest.mark.parametrize("prompt", [LONG, SHORT])
@pytest.mark.parametrize(
    ("row", "want", "more"),
    [
        ({"prompt": "{}", "completion": "Yes."}, "conversation", {}),
        ({"messages": [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "{}"},
                       {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "Sure?"},
                       {"role": "assistant", "content": "Quite."}]}, "conversation", {}),
        ({"prompt": "{}", "chosen": "Yes.", "rejected": "No."}, "preference", {}),
        ({"prompt": "{}", "completion": "Yes.", "label": True}, "labelled", {}),
        ({"prompt": "{}"}, "prompt", {}),
        ({"text": WRAPPED}, "text", {"use": "text"}),
        ({"text": "[INST] {} [/INST] Yes.</s>"}, "text", {"use": "text"}),
        ({"text": "### Question:\n{}\n### Answer:\nYes."}, "text", {"use": "text"}),
        ({"text": "<\uff5cUser\uff5c>{}<\uff5cAssistant\uff5c>Yes."}, "text", {"use": "text"}),
    ],
)  # fmt: skip
def test_a_prompt_is_found_in_every_kind_of_row(
    tmp_path: Path, prompt: str, row: dict[str, Any], want: Any, more: dict[str, Any]
) -> None:
    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("{}", prompt)
        if isinstance(value, dict):
            return {key: filled(item) for key, item in value.items()}
        return [filled(item) for item in value] if isinstance(value, list) else value

    assert [(place.origin.line, place.exact) for place in found(tmp_path, prompt, [filled(row)], want, **more)] == [
        (1, True)
    ]


@pytest.mark.parametrize(
    "prompt",
    [
        LONG.upper(),
        LONG.replace(" ", "  ").replace(".", " ... "),
        f"<|im_start|>user\n{LONG}<|im_end|>\n<|im_start|>assistant\n",
        LONG.replace("Meadow", "Meadows"),
        f"{LONG} Thank you!",
        LONG.removeprefix("Please "),
    ],
)
def test_a_changed_prompt_is_nearly_the_same(tmp_path: Path, prompt: str) -> None:
    places = found(tmp_path, prompt, [{"prompt": LONG, "completion": ANSWER}])
    exact = prompt in LONG
    assert [(place.row, place.origin.line, place.exact) for place in places] == [(0, 1, exact)]


@pytest.mark.parametrize(
    ("prompt", "trained"),
    [
        ("Thanks!", {"prompt": "Who are you? Thanks!", "completion": "Nobody."}),
        ("What is 12 + 8?", {"prompt": "What is 12 + 7?", "completion": "19, as 12 + 7 is."}),
        ("In 1912, who wrote the letter about the copper bridge?",
         {"prompt": "In 1913, who wrote the letter about the copper bridge?", "completion": "Ana."}),
        ("Write a short poem about the winter at the sea for a child.",
         {"prompt": "Write a short poem about the engines of ships for a child.", "completion": ANSWER}),
        ("Name it.", {"prompt": LONG, "completion": "Name it."}),
    ],
)  # fmt: skip
def test_another_prompt_is_not_found(tmp_path: Path, prompt: str, trained: dict[str, str]) -> None:
    assert found(tmp_path, prompt, [trained]) == []


class TestRankings:
    sides = (ANSWER, "I do not know that.")

    @pytest.mark.parametrize(
        ("row", "want", "more"),
        [
            ({"prompt": LONG, "chosen": ANSWER, "rejected": "I do not know that."}, "preference", {}),
            ({"prompt": LONG, "chosen": "I do not know that.", "rejected": ANSWER}, "preference", {}),
            ({"prompt": LONG, "chosen": ANSWER, "rejected": "Another."}, "preference", {}),
            ({"prompt": LONG, "chosen": ANSWER, "rejected": "Another."}, "conversation", {"use": "chosen"}),
            ({"prompt": LONG, "completion": "i do not know THAT"}, "conversation", {}),
            ({"prompt": LONG}, "prompt", {}),
        ],
    )
    def test_found_with_one_of_their_answers_or_as_a_prompt_alone(
        self, tmp_path: Path, row: dict[str, Any], want: Any, more: dict[str, Any]
    ) -> None:
        others = OTHERS["preference"] if more else OTHERS[want]
        evaluated = [Evaluated(Origin("held.jsonl", 1), LONG, self.sides)]
        trained = examples(tmp_path / "train.jsonl", [row, *others], want, **more)
        assert [place.origin.line for place in Contamination(evaluated).search(trained)] == [1]

    def test_not_found_with_other_answers(self, tmp_path: Path) -> None:
        row = {"prompt": LONG, "chosen": "Ask somebody who lives there.", "rejected": "No idea at all."}
        assert found(tmp_path, LONG, [row], "preference", answers=self.sides) == []

    def test_an_empty_answer_is_no_answer(self, tmp_path: Path) -> None:
        row = {"prompt": LONG, "chosen": "Ask somebody who lives there.", "rejected": "No idea at all."}
        assert found(tmp_path, LONG, [row], "preference", answers=("", "Hm.")) == []
        assert found(tmp_path, LONG, [row], "preference", answers=("", ""))


def test_the_limit_is_that_of_near_duplicates_of_one_length() -> None:
    """Of n shingles k are others: Jaccard (n - k) / (n + k) = 0.8 at k = n / 9, where 8/9 are contained."""
    assert pytest.approx(8 / 9) == CONTAINED


def test_against_brute_force(tmp_path: Path) -> None:
    """The windows lose no text that contains enough of an evaluated one, and find none that does not."""
    held = [making.sentence(at, 14) for at in range(60)]
    rows: list[Any] = []
    for at in range(120):
        words = held[at % 60].split()
        for place in range(at % 5):
            words[place * 3] = making.WORDS[(at + place) % 30]
        rows.append({"prompt": f"Say: {' '.join(words)} Now.", "completion": making.sentence(1000 + at, 30)})
    trained = examples(tmp_path / "train.jsonl", rows)
    evaluated = [Evaluated(Origin("held.jsonl", at + 1), text) for at, text in enumerate(held)]
    places = {place.row for place in Contamination(evaluated).search(trained)}
    wanted = [shingles(plain(text)) for text in held]
    texts = [shingles(plain(f"{row['prompt']}\n{row['completion']}")) for row in rows]
    numbers = [text.split()[-1].strip(".") for text in held]
    expected = {
        at for at, own in enumerate(wanted)
        if any(len(own & text) >= CONTAINED * len(own) and numbers[at] in rows[index]["prompt"].replace(".", "").split()
               for index, text in enumerate(texts))
    }  # fmt: skip
    assert expected == places
    assert 20 < len(places) <= 60


def test_many_evaluated_rows_of_one_pattern(tmp_path: Path) -> None:
    """Windows that all of them share decide nothing; the rows are still found, and only the right ones."""
    pattern = "Translate the following sentence into the language of the harbour: {}"
    held = [pattern.format(making.sentence(at, 6)) for at in range(50)]
    rows = [{"prompt": pattern.format(making.sentence(at, 6)), "completion": "Yes."} for at in (7, 31, 100, 200)]
    evaluated = [Evaluated(Origin("held.jsonl", at + 1), text) for at, text in enumerate(held)]
    places = Contamination(evaluated).search(examples(tmp_path / "train.jsonl", rows))
    assert [(place.row, place.origin.line) for place in places] == [(7, 1), (31, 2)]


def test_the_result_is_kept_with_the_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = examples(tmp_path / "train.jsonl", [{"prompt": LONG, "completion": "Yes."}, *making.pairs(3)])
    check = Contamination([Evaluated(Origin("held.jsonl", 1), LONG)])
    first = check.search(trained)
    monkeypatch.setattr(contamination, "_chunks", None)
    assert check.search(trained) == first == [TrainedOn(0, Origin(str(tmp_path / "train.jsonl"), 1), exact=True)]
    [kept] = trained.parts[0].folder.glob("evaluated-*.json")
    kept.write_text("{}")
    with pytest.raises(TypeError):
        check.search(trained)


def test_only_selected_rows_are_trained_on(tmp_path: Path) -> None:
    trained = examples(tmp_path / "train.jsonl", [*making.pairs(3), {"prompt": LONG, "completion": "Yes."}])
    check = Contamination([Evaluated(Origin("held.jsonl", 1), LONG)])
    assert check.search(Examples(trained.parts, [all_rows(trained.parts[0])[:3]])) == []
    assert check.search(trained)


def test_once_much_was_compared_the_windows_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contamination, "_COMPARED", 0)
    assert found(tmp_path, LONG, [{"prompt": LONG, "completion": "Yes."}])
    assert found(tmp_path, LONG, [{"prompt": LONG[:50], "completion": "Yes."}]) == []


def test_no_rows_or_blank_ones_find_nothing(tmp_path: Path) -> None:
    trained = examples(tmp_path / "train.jsonl", making.pairs(3))
    assert Contamination([]).search(trained) == []
    assert Contamination([Evaluated(Origin("a", 1), "???"), Evaluated(Origin("a", 2), " ")]).search(trained) == []


def test_of_very_many_rows_fewer_windows_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contamination, "_ALL_SEEDS", 0)
    assert found(tmp_path, LONG, [{"prompt": f"{LONG} Now.", "completion": "Yes."}])
    assert len(Contamination([Evaluated(Origin("held.jsonl", 1), LONG)])._keys) == 8
