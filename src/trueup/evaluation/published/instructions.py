"""The checks of IFEval for instructions such as "at least 3 sentences" (Zhou et al. 2023, arXiv:2311.07911).

Written anew from the paper and its reference implementation. Two checks differ from it in libraries: sentences are
counted by a rule instead of NLTK's trained model, and the language is recognised by script and frequent words instead
of langdetect, whose results vary from run to run.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence

from trueup.evaluation.published.languages import language_of

Check = Callable[..., bool]


def followed(reply: str, instruction: str, arguments: Mapping[str, object], *, loose: bool = False) -> bool:
    """Return True if a reply follows one instruction.

    Args:
        reply: the text that the model wrote.
        instruction: the instruction's name in IFEval, such as "punctuation:no_comma".
        arguments: its arguments, such as {"num_words": 300, "relation": "at least"}; those that are null are left out.
        loose: it is enough that one of eight variants of the reply follows it: without asterisks, first or last line.
    """
    check = INSTRUCTIONS[instruction]
    given = {key: value for key, value in arguments.items() if value is not None}
    replies = variants(reply) if loose else [reply]
    return any(check(text, **given) for text in replies if text.strip())


def variants(reply: str) -> list[str]:
    """Return the eight variants of a reply that IFEval's loose accuracy tries (section 3.1)."""
    lines = reply.split("\n")
    texts = [reply, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*texts, *(text.replace("*", "") for text in texts)]


def argument_problem(instruction: str, arguments: Mapping[str, object]) -> str | None:
    """Return what is wrong with an instruction's name or arguments, or None if it can be checked."""
    if instruction not in INSTRUCTIONS:
        return f"{instruction!r} is no instruction of IFEval; it has {', '.join(INSTRUCTIONS)}"
    parameters = list(inspect.signature(INSTRUCTIONS[instruction]).parameters.values())[1:]
    given = {key for key, value in arguments.items() if value is not None}
    names = {parameter.name for parameter in parameters}
    lacking = [p.name for p in parameters if p.default is p.empty and p.name not in given]
    if lacking:
        return f"{instruction} lacks its arguments {', '.join(lacking)}"
    unknown = sorted(given - names)
    return (
        f"{instruction} has no argument {', '.join(unknown)}; it has {', '.join(sorted(names)) or 'none'}"
        if unknown
        else None
    )


def _compared(count: int, relation: str, limit: int) -> bool:
    return count < limit if relation == "less than" else count >= limit


def keywords_exist(reply: str, keywords: Sequence[str]) -> bool:
    """Every keyword occurs."""
    return all(re.search(re.escape(word), reply, re.IGNORECASE) for word in keywords)


def keyword_frequency(reply: str, keyword: str, frequency: int, relation: str) -> bool:
    """A keyword occurs "less than" or "at least" so many times."""
    return _compared(len(re.findall(re.escape(keyword.strip()), reply, re.IGNORECASE)), relation, frequency)


def no_forbidden_words(reply: str, forbidden_words: Sequence[str]) -> bool:
    """None of the words occurs as a whole word."""
    return not any(re.search(rf"\b{re.escape(word)}\b", reply, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(reply: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    """A letter of either case occurs "less than" or "at least" so many times."""
    return _compared(reply.lower().count(letter.strip().lower()), let_relation, let_frequency)


def in_language(reply: str, language: str) -> bool:
    """The whole reply is in a language (ISO 639-1), also where the language cannot be recognised."""
    return language_of(reply) in (language, None)


def sentence_count(reply: str, num_sentences: int, relation: str) -> bool:
    """The reply has "less than" or "at least" so many sentences."""
    return _compared(len(sentences(reply)), relation, num_sentences)


def paragraph_count(reply: str, num_paragraphs: int) -> bool:
    """The reply has exactly so many paragraphs, divided by `***`."""
    parts = re.split(r"\s?\*\*\*\s?", reply)
    inner = parts[1:-1]
    ends = [parts[0], parts[-1]] if len(parts) > 1 else parts
    return (
        all(part.strip() for part in inner) and len(inner) + sum(bool(part.strip()) for part in ends) == num_paragraphs
    )


def word_count(reply: str, num_words: int, relation: str) -> bool:
    """The reply has "less than" or "at least" so many words (runs of letters and digits)."""
    return _compared(len(re.findall(r"\w+", reply)), relation, num_words)


def first_word_of_paragraph(reply: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """There are so many paragraphs, divided by blank lines, and the nth (from 1) begins with a word."""
    paragraphs = reply.split("\n\n")
    count = sum(bool(part.strip()) for part in paragraphs)
    if nth_paragraph > count or not paragraphs[nth_paragraph - 1].strip():
        return False
    word = paragraphs[nth_paragraph - 1].split()[0].lstrip("'\"")
    return count == num_paragraphs and re.split(r"[.,?!'\"]", word.lower())[0] == first_word.lower()


def placeholders(reply: str, num_placeholders: int) -> bool:
    """At least so many placeholders in square brackets, such as [address]."""
    return len(re.findall(r"\[.*?\]", reply)) >= num_placeholders


def postscript(reply: str, postscript_marker: str) -> bool:
    """There is a postscript with the marker "P.S." or "P.P.S"."""
    marker = postscript_marker.strip()
    patterns = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(patterns.get(marker, re.escape(marker.lower())), reply.lower()) is not None


def bullets(reply: str, num_bullets: int) -> bool:
    """Exactly so many bullet points, lines that begin with `*` or `-`."""
    stars = re.findall(r"^\s*\*[^\*].*$", reply, re.MULTILINE)
    return len(stars) + len(re.findall(r"^\s*-.*$", reply, re.MULTILINE)) == num_bullets


def constrained(reply: str) -> bool:
    """One of "My answer is yes.", "My answer is no." and "My answer is maybe." occurs."""
    return any(f"My answer is {word}." in reply for word in ("yes", "no", "maybe"))


def highlights(reply: str, num_highlights: int) -> bool:
    """At least so many parts are highlighted in Markdown: *part* or **part**."""
    single = [text.strip("*") for text in re.findall(r"\*[^\n\*]*\*", reply)]
    double = [text[2:-2] for text in re.findall(r"\*\*[^\n\*]*\*\*", reply)]
    return sum(bool(text.strip()) for text in (*single, *double)) >= num_highlights


def sections(reply: str, section_spliter: str, num_sections: int) -> bool:
    """At least so many sections, each with a heading such as "Section 1"."""
    return len(re.split(rf"\s?{re.escape(section_spliter.strip())}\s?\d+\s?", reply)) - 1 >= num_sections


def is_json(reply: str) -> bool:
    """The whole reply is JSON, perhaps in a block of Markdown."""
    text = re.sub(r"^```(?:json|Json|JSON)?", "", reply.strip()).removesuffix("```").strip()
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def has_title(reply: str) -> bool:
    """There is a title in double angle brackets, such as <<poem of joy>>."""
    return any(text.strip("<> ") for text in re.findall(r"<<[^\n]+>>", reply))


def two_responses(reply: str) -> bool:
    """There are two different answers, divided by six asterisks."""
    parts = reply.split("******")
    if not all(part.strip() for part in parts[1:-1]):
        return False
    answers = [part.strip() for part in parts if part.strip()]
    return len(answers) == 2 and answers[0] != answers[1]


def repeats_prompt(reply: str, prompt_to_repeat: str) -> bool:
    """The reply begins with the request, word for word."""
    return reply.strip().lower().startswith(prompt_to_repeat.strip().lower())


def ends_with(reply: str, end_phrase: str) -> bool:
    """The reply ends with a phrase."""
    return reply.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quoted(reply: str) -> bool:
    """The whole reply stands in double quotation marks."""
    text = reply.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def capital_words(reply: str, capital_frequency: int, capital_relation: str) -> bool:
    """Words in capitals alone occur "less than" or "at least" so many times; a word with hyphens is one word."""
    words = re.findall(r"\w+(?:[-'’.]\w+)*", reply)
    return _compared(sum(word.isupper() for word in words), capital_relation, capital_frequency)


def english_capitals(reply: str) -> bool:
    """The reply is in English and in capitals alone."""
    return reply.isupper() and language_of(reply) in ("en", None)


def english_lowercase(reply: str) -> bool:
    """The reply is in English and has no capital letter."""
    return reply.islower() and language_of(reply) in ("en", None)


def no_comma(reply: str) -> bool:
    """The reply has no comma."""
    return "," not in reply


_ABBREVIATIONS = r"(?<!\bMr)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bMrs)(?<!\bvs)(?<!\be\.g)(?<!\bi\.e)(?<!\b[A-Z])"
_END_OF_SENTENCE = re.compile(rf"{_ABBREVIATIONS}[.!?]+[\"'”’)\]*]*(?=\s+[\"'“‘(\[*]*[^\sa-z])|\n\s*\n|[。！？]+")


def sentences(text: str) -> list[str]:
    """Return the sentences of a text.

    A sentence ends with `.`, `!` or `?` before a space and no lower-case letter, not after an abbreviation or an
    initial; with a blank line, or with a full stop of Chinese or Japanese.
    """
    parts = [text[slice(*span)] for span in _spans(text)]
    return [part.strip() for part in parts if re.search(r"\w", part)]


def _spans(text: str) -> list[tuple[int, int]]:
    ends = [match.end() for match in _END_OF_SENTENCE.finditer(text)] + [len(text)]
    return list(zip([0, *ends], ends, strict=False))


INSTRUCTIONS: Mapping[str, Check] = {
    "keywords:existence": keywords_exist,
    "keywords:frequency": keyword_frequency,
    "keywords:forbidden_words": no_forbidden_words,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": in_language,
    "length_constraints:number_sentences": sentence_count,
    "length_constraints:number_paragraphs": paragraph_count,
    "length_constraints:number_words": word_count,
    "length_constraints:nth_paragraph_first_word": first_word_of_paragraph,
    "detectable_content:number_placeholders": placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": bullets,
    "detectable_format:constrained_response": constrained,
    "detectable_format:number_highlighted_sections": highlights,
    "detectable_format:multiple_sections": sections,
    "detectable_format:json_format": is_json,
    "detectable_format:title": has_title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeats_prompt,
    "startend:end_checker": ends_with,
    "startend:quotation": quoted,
    "change_case:capital_word_frequency": capital_words,
    "change_case:english_capital": english_capitals,
    "change_case:english_lowercase": english_lowercase,
    "punctuation:no_comma": no_comma,
}
"""The 25 instructions of IFEval, by name -> the check of a reply."""


def counted(reply: str, instructions: Sequence[str], arguments: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """Return a reply's scores on all instructions of its prompt.

    Returns:
        "score" and "loose": 1 if all instructions are followed, strictly and loosely (prompt-level accuracy);
        "followed" and "followed loosely": the number that is followed; "instructions": the number of instructions.
    """
    pairs = list(zip(instructions, arguments, strict=True))
    strict = [followed(reply, name, given) for name, given in pairs]
    loose = [followed(reply, name, given, loose=True) for name, given in pairs]
    return {
        "score": float(all(strict)), "loose": float(all(loose)), "followed": float(sum(strict)),
        "followed loosely": float(sum(loose)), "instructions": float(len(pairs)),
    }  # fmt: skip
