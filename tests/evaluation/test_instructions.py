"""IFEval's checks: each of the 25 instructions on a reply that follows it and on one that does not."""

from __future__ import annotations

from typing import Any

import pytest

from trueup.evaluation.published.instructions import INSTRUCTIONS, argument_problem, counted, followed, sentences
from trueup.evaluation.published.languages import language_of

CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["cat", "Dog"]}, "A dog and a CAT.", "A dog."),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "at least"}, "Cat, cat.", "Cat."),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "A category.", "A cat."),
    ("keywords:letter_frequency", {"letter": "q", "let_frequency": 2, "let_relation": "less than"}, "Quit", "Q, q."),
    ("language:response_language", {"language": "de"}, "Das ist ein Hund und keine Katze.", "This is not a cat."),
    (
        "length_constraints:number_sentences", {"num_sentences": 3, "relation": "less than"},
        "Dr. Ito came at 3.30. She left.", "One. Two! Three?",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.\n***\nTwo.", "One.\n\nTwo."),
    ("length_constraints:number_words", {"num_words": 4, "relation": "at least"}, "one two-three four", "one two"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "yes"}, "No.\n\n\"Yes, sir.", "Yes.\n\nNo.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] at [place]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP. S. More.", "Bye.\nPS: more."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n - b", "* a\n* b\n* c"),
    ("detectable_format:constrained_response", {}, "My answer is no.", "No."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and *b*", "*a* and **"),
    (
        "detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2},
        "Section 1\nA\nSection 2\nB", "Section 1\nA",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "a: 1"),
    ("detectable_format:title", {}, "<<A title>>\nText", "<<>> Text"),
    ("combination:two_responses", {}, "One\n******\nTwo", "One\n******\nOne"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. I did.", "I did."),
    ("startend:end_checker", {"end_phrase": "The end."}, 'So.\n"the END."', "The end. Yes."),
    ("startend:quotation", {}, ' "All of it." ', '"Some" of it.'),
    (
        "change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"},
        "NO WAY, sir", "NO way, sir",
    ),
    ("change_case:english_capital", {}, "THIS IS THE END OF IT.", "THIS is the end."),
    ("change_case:english_lowercase", {}, "this is the end of it.", "This is the end."),
    ("punctuation:no_comma", {}, "One and two.", "One, two."),
]  # fmt: skip


def test_every_instruction_has_a_case() -> None:
    assert [case[0] for case in CASES] == list(INSTRUCTIONS)


@pytest.mark.parametrize(("instruction", "arguments", "right", "wrong"), CASES)
def test_a_reply_that_follows_an_instruction_and_one_that_does_not(
    instruction: str, arguments: dict[str, Any], right: str, wrong: str
) -> None:
    assert argument_problem(instruction, arguments) is None
    assert followed(right, instruction, {**arguments, "unused": None})
    assert not followed(wrong, instruction, arguments)
    assert not followed("", instruction, arguments)


def test_the_loose_check_leaves_out_asterisks_and_the_first_or_last_line() -> None:
    reply = "Here, as you wish:\n**no comma at all**"
    assert counted(reply, ["punctuation:no_comma", "startend:quotation"], [{}, {}]) == {
        "score": 0.0, "loose": 0.0, "followed": 0.0, "followed loosely": 1.0, "instructions": 2.0
    }  # fmt: skip


def test_sentences_do_not_end_at_abbreviations_and_numbers() -> None:
    text = 'Mr. Fox paid $3.50, i.e. too much. "Why?" he asked. J. R. left…\n\nA heading\n\nIt rained.'
    assert sentences(text)[:2] == ["Mr. Fox paid $3.50, i.e. too much.", '"Why?" he asked.']
    assert len(sentences("今日は雨です。明日は晴れ！")) == 2


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "The weather is nice and we are going to the park."),
        ("de", "Das Wetter ist schön und wir gehen in den Park."),
        ("fr", "Le temps est beau et nous allons dans le parc."),
        ("es", "El tiempo es bueno y vamos al parque con los niños."),
        ("pt", "O tempo está bom e não vamos para o parque."),
        ("it", "Il tempo è bello e andiamo al parco con la bambina."),
        ("ru", "Сегодня хорошая погода, и мы идём в парк, но не на реку."),
        ("uk", "Сьогодні гарна погода, і ми йдемо до парку, але не на річку, що є далеко."),
        ("hi", "आज मौसम अच्छा है और हम पार्क में जा रहे हैं।"),
        ("ar", "الطقس جميل اليوم في هذا المكان و هو بارد"),
        ("ja", "今日は天気がいいので公園に行きます。"),
        ("zh", "今天天气很好，我们去公园。"),
        ("ko", "오늘은 날씨가 좋아서 공원에 갑니다."),
        ("th", "วันนี้อากาศดี"),
        (None, "1234 !!"),
    ],
)
def test_languages_are_told_by_script_and_frequent_words(language: str | None, text: str) -> None:
    assert language_of(text) == language
