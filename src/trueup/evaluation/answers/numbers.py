"""The number that a reply gives as its answer, among all the numbers in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from trueup.evaluation.answers.assertions import (
    final_part,
    gist,
    inside,
    normal,
    reasons,
    sentences,
    skeleton,
    stem,
    tokens,
    unasserted,
)
from trueup.evaluation.answers.quantities import NUMBER_WORDS, Quantity, Unit, equal, quantities
from trueup.evaluation.answers.question import Question, noun_after, words_after

_AROUND = 60
"""Characters before and after a number that are searched for operators, nouns and bounds."""

_OPERATOR_AFTER = re.compile(
    r"\s*(?:[+×*÷^]|[-\u2013]\s?(?=[\d(√$.])|/\s*[\d(.$]|[xX]\s?(?=[\d.$(])|(?:plus|minus|multiplied by|divided by|to the power)\b"
    rf"|times\s+(?=[\d($√]|(?:{'|'.join(NUMBER_WORDS)})\b)"
    r"|squared\b|cubed\b|(?:percent\s)?of\s+(?:the\s+|those\s+|these\s+)?(?=[\d$]))"
)
_OPERATOR_BEFORE = re.compile(
    r"(?:[+×*÷/√^]|[\w)]\s?-|\b(?:plus|minus|(?<=[\d\w]\s)times|(?:divided|multiplied|multiply|divide) by|root of|from|add|adding|subtract(?:ing)?|multiply(?:ing)?|dividing|divide)"
    r"|\b(?:half|thirds?|quarters?|double|twice|triple|percent|%|number|ratio) of(?: the)?|%\s?of|[a-z][(]|\d of)\s*[$(]?$",
    re.IGNORECASE,
)
_RESULT_BEFORE = re.compile(
    r"(?:=|≈|⇒|→|\bequals?|\bequal to|\bgives|\bmakes?|\bgives us|\bgets?|\bgot)\s*[~$]?$", re.IGNORECASE
)
_BOUND = re.compile(
    r"\b(?:than|over|under|above|below|at least|at most|up to|exceed(?:s|ing)|minimum of|maximum of)\s*(?:about\s*)?$",
    re.IGNORECASE,
)
_OR_BEFORE = re.compile(r"(?:\bor|/)\s*(?:maybe|perhaps|possibly|even|about)?\s*$", re.IGNORECASE)
_CONCLUDES = re.compile(
    r"(?:^|[.!?,;:\n]\s*)(?:and\s+)?(?:so|therefore|thus|hence|overall|finally|in conclusion|then|that means"
    r"|this means|that leaves|this leaves|that makes)\b|[⇒→]|\b(?:therefore|thus|hence)\b",
    re.IGNORECASE,
)
_CHECKS = re.compile(
    r"\W*(?:check|to check|verif|we can (?:check|verify)|you can|let's (?:check|verify)|note|this is because)",
    re.IGNORECASE,
)
_PART = re.compile(
    r"[.;!?\n](?=\s|$)|\n|,?\s(?:and|but|while|whereas|although|though)\s|,\s(?:which|who|unlike|where)\s"
)
_ENDS = re.compile(r"\b(?:end\w*|finish\w*|die\w*|death|last|over|until|conclude\w*|fell|fall)\b", re.IGNORECASE)
_BEGINS = re.compile(r"\b(?:begin\w*|began|start\w*|born|birth|first|found\w*|from|broke out)\b", re.IGNORECASE)


def as_quantities(key: str) -> list[Quantity] | None:
    """Return the quantities that an accepted answer consists of; None where it is not a number, date or time.

    "12", "$18", "about 60%", "July 4, 1776" and "x = 7" are one; "3 and 5" are two.
    """
    text = re.sub(r"^\s*(?:about|approximately|around|roughly|~|≈|[a-zA-Z]\s?=)\s*", "", key.strip().rstrip("."))
    parts = quantities(text)
    if not parts or len(parts) > 6:
        return None
    between = [text[a.end : b.start] for a, b in pairwise(parts)]
    if text[: parts[0].start].strip() or text[parts[-1].end :].strip():
        rest = re.fullmatch(r"\s[^\W\d_]+", text[parts[-1].end :])  # "12 edges": a counted thing
        if text[: parts[0].start].strip() or len(parts) > 1 or rest is None or not text[parts[0].start].isdigit():
            return None
    if any(not re.fullmatch(r"\s*(?:,|;|and|,\s*and|&)\s*", part) for part in between):
        return None
    return parts


def gives_quantities(text: str, wanted: Sequence[Quantity], question: Question) -> bool:
    """Return True if a reply's answer is the wanted number, date or time, or just the wanted several ones.

    Args:
        text: the reply in plain notation, with marks as ⟦X⟧.
        wanted: the accepted answer's quantities.
        question: the question.
    """
    kind = wanted[0].kind
    unit = wanted[0].unit or question.unit

    def stated(part: str) -> list[Quantity]:
        return _stated(part, kind, question)

    decisive = final_part(text, lambda part: bool(stated(part)))
    pool = stated(decisive)
    if len(wanted) > 1:
        rest = [
            number
            for number in _preferred(pool, lambda number: not _is_operand(decisive, number))
            if not question.is_given(number)
        ]
        return _all_and_no_other(rest or pool, wanted, unit)
    answer = _answer(decisive, pool, question, unit)
    if answer is None:
        return False
    exact = question.asks_to_round
    if equal(answer, wanted[0], unit if kind == "number" else None, rounded=not exact):
        return True
    scaled = _scaled(answer, question.scale)
    return scaled is not None and equal(scaled, wanted[0], unit, rounded=not exact)


def _scaled(number: Quantity, scale: int) -> Quantity | None:
    """Return a number in the multiple that the question asks for: 4.54 billion years in billions of years."""
    value = number.values[0]
    return replace(number, values=(value / scale,)) if scale > 1 and isinstance(value, Fraction) else None


def _all_and_no_other(given: Sequence[Quantity], wanted: Sequence[Quantity], unit: Unit | None) -> bool:
    return all(any(equal(number, key, unit) for number in given) for key in wanted) and all(
        any(equal(number, key, unit) for key in wanted) for number in given
    )


def _stated(text: str, kind: str, question: Question) -> list[Quantity]:
    """Return the quantities of a kind that a text asserts: not denied, supposed, or a mere bound ("more than 10")."""
    denied = unasserted(text, denials=not question.is_negated)
    result: list[Quantity] = []
    for written in quantities(text):
        number = _as_year(written, question) if kind == "number" else written
        if not _is_of_kind(number, kind) or inside(number.start, denied) or _is_pronoun(text, number):
            continue
        if _BOUND.search(text, max(0, number.start - _AROUND), number.start) or (
            not question.is_negated and _denied_after(text, number)
        ):
            continue
        result.append(number)
    return result


def _is_of_kind(number: Quantity, kind: str) -> bool:
    if kind == "number":
        return number.kind in ("number", "range") or (
            number.kind == "date" and all(isinstance(v, tuple) and v[0] for v in number.values)
        )
    return number.kind == kind


def _as_year(number: Quantity, question: Question) -> Quantity:
    """Return of "1914-1918" the year that the question asks for: the end's, or the beginning's."""
    low, high = (number.values[0], number.values[-1])
    if (
        number.kind != "range"
        or not all(isinstance(v, Fraction) and 1000 <= v <= 2100 for v in (low, high))
        or number.unit
    ):
        return number
    begins, ends = _BEGINS.search(question.asking), _ENDS.search(question.asking)
    if begins and not ends:
        return Quantity("number", (low,), number.start, number.end)
    return Quantity("number", (high,), number.start, number.end) if ends or not question.asking else number


def _is_pronoun(text: str, number: Quantity) -> bool:
    """Return True for "one" and such words where they count nothing: "no one", "one of them", "the third"."""
    if not number.written or " " in text[number.start : number.end].strip():
        return False
    word = text[number.start : number.end].lower()
    before = text[max(0, number.start - 12) : number.start].lower()
    after = text[number.end : number.end + 12].lower()
    if word == "one":
        return re.search(r"\b(?:no|any|some|every|this|that|the|each|another|which)[ -]$", before) is not None or (
            re.match(r"\s(?:of|another|can|could|day|has to|by one|should|must|would|reason|way|might)\b", after)
            is not None
        )
    if word in ("third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "quarter"):
        return not re.search(r"\b(?:an?|one)\s$", before) and not re.fullmatch(
            r"\W*", text[: number.start] + text[number.end :]
        )
    return False


def _denied_after(text: str, number: Quantity) -> bool:
    """Return True for "12 is wrong", "12 isn't the answer"."""
    after = text[number.end : number.end + _AROUND]
    return (
        re.match(
            r"[\"')]*\s(?:is|was|would be|are)(?:n't| not)? (?:wrong|incorrect|false|too (?:much|many|big|high|low|small|few)|(?<=not )(?:the )?(?:right|correct|answer))"
            r"|[\"')]*\s(?:is|was)(?:n't| not) (?:the |a )?(?:right|correct|answer|it\b|\w+ answer)",
            after, re.IGNORECASE,
        )
        is not None
    )  # fmt: skip


def _preferred(items: Sequence[Quantity], test: Callable[[Quantity], bool]) -> list[Quantity]:
    """Return the items that pass a test, or all where none does."""
    return [item for item in items if test(item)] or list(items)


def _is_operand(text: str, number: Quantity) -> bool:
    if _OPERATOR_AFTER.match(text, number.end):
        return True
    if "/" in text[number.start : number.end] and all(
        isinstance(v, Fraction) and v.denominator == 1 for v in number.values
    ):
        return True  # 144/16 is a division, not yet its result
    before = text[max(0, number.start - _AROUND) : number.start]
    return _OPERATOR_BEFORE.search(before) is not None and not _is_result(text, number)


def _is_result(text: str, number: Quantity) -> bool:
    return _RESULT_BEFORE.search(text, max(0, number.start - 15), number.start) is not None


def _is_left_side(text: str, number: Quantity) -> bool:
    return re.match(r"\s*[=≈]", text[number.end : number.end + 5]) is not None


def _answer(text: str, pool: list[Quantity], question: Question, unit: Unit | None) -> Quantity | None:
    """Return the quantity among the stated ones that answers the question; None where several do, or none."""
    if not pool:
        return None
    explained = reasons(text)
    if unit is not None:
        pool = _preferred(pool, lambda number: number.unit is None or number.unit.dimension == unit.dimension)
    asked = unit.dimension if unit else None
    pool = _preferred(
        pool, lambda number: not _is_operand(text, number) or (asked == "percent" and number.unit is not None)
    )
    pool = _preferred(pool, lambda number: not inside(number.start, explained))
    pool = _preferred(
        pool, lambda number: not question.is_given(number, noun_after(text, number.end)) or _is_result(text, number)
    )
    if question.nouns and all(len(noun) == 1 for noun in question.nouns):  # "what is x?"
        pool = [number for number in pool if _label_before(text, number) & question.nouns][-1:] or pool
    pool = _preferred(pool, lambda number: not _is_left_side(text, number))
    if _differ(pool, unit):
        if _is_derivation(text, pool, question):
            pool = _conclusion(text, pool)
        else:
            if unit is not None:
                pool = _preferred(pool, lambda number: number.unit is not None)
            pool = _about_the_asked(text, pool, question)
    if not pool or _alternatives(text, pool, unit):
        return None
    return pool[0]


def _differ(pool: Sequence[Quantity], unit: Unit | None) -> bool:
    return any(not equal(number, pool[0], unit) for number in pool[1:])


def _is_derivation(text: str, pool: Sequence[Quantity], question: Question) -> bool:
    """Return True if the reply works its answer out, so that what it says first is a step.

    It is one where it has several results, or concludes, or follows a word problem, unless its first sentence already
    answers: it repeats what is asked, or is nothing but a number, and no later result is computed from that number.
    """
    first = pool[0]
    spans = sentences(text)
    start, end = next((span for span in spans if span[0] <= first.start < span[1]), (0, len(text)))
    later = [number for number in pool if number.start >= end and not question.is_given(number)]
    inside_first = [number for number in pool if number.start < end]
    if not later:
        results = [number for number in inside_first if _is_result(text, number)]
        return (
            len(results) > 1
            or _CONCLUDES.search(text[first.end : max(number.start for number in inside_first)]) is not None
        )
    head = text[start:end]
    if _direct(head, first, start) and not (
        question.is_calculation and re.match(r"\W*(?:there|they|this|that)\b", head, re.IGNORECASE)
    ):
        return _is_used(text[end:], first, later, question)
    if question.asking and question.overlap(head) >= 0.75:
        last = next(span for span in reversed(spans) if span[0] <= later[-1].start)
        return question.overlap(text[slice(*last)]) >= 0.75 or _is_used(text[end:], first, later, question)
    if _CONCLUDES.search(text[end:].lstrip()) and not question.asks_core(head):
        return True
    return question.is_calculation or sum(_is_result(text, number) for number in pool) > 1


def _direct(head: str, first: Quantity, start: int) -> bool:
    """Return True if a sentence begins with its number: "9, because …", "It's 42 pages.", "There are 12 edges."."""
    before = head[: first.start - start]
    lead = r"\W*(?:(?:yes|well|so|sure|ok|okay|hmm)\W+)?(?:(?:it|that|this|there|they|the answer)(?:'s|'re| is| are| would be| has| have)|i (?:think|believe|count|get))?(?: (?:about|exactly|it's|a total of))?\W*"
    follows = re.match(r"\s(?:is|was|are|were)\b", head[first.end - start :])
    return follows is None and re.fullmatch(lead, before, re.IGNORECASE) is not None


def _is_used(rest: str, first: Quantity, later: Sequence[Quantity], question: Question) -> bool:
    """Return True if the number is computed with in the rest of the text, so that it was not the answer yet."""
    used = any(number.values == first.values and _is_operand(rest, number) for number in quantities(rest))
    return used and any(not question.is_given(number) and number.values != first.values for number in later)


def _conclusion(text: str, pool: Sequence[Quantity]) -> list[Quantity]:
    """Return the number of the last sentence that is no check: after "so", its last result, else its first number."""
    spans = [span for span in sentences(text) if any(span[0] <= number.start < span[1] for number in pool)]
    start, end = next((span for span in reversed(spans) if not _CHECKS.match(text, *span)), spans[-1])
    last = _after_conclusion(text, [number for number in pool if start <= number.start < end], start, end)
    results = [number for number in last if _is_result(text, number)]
    return [results[-1]] if results else last


def _after_conclusion(text: str, last: list[Quantity], start: int, end: int) -> list[Quantity]:
    marks = list(_CONCLUDES.finditer(text[start:end]))
    return [number for number in last if marks and number.start >= start + marks[-1].end()] or last


def _about_the_asked(text: str, pool: Sequence[Quantity], question: Question) -> list[Quantity]:
    """Return the numbers whose noun, label and clause fit the question best; none where all count other things."""
    scores: list[float] = []
    others = 0
    nouns: list[str] = []
    if _stands_alone(text, pool[0]):
        return list(pool[:1])
    for previous, number in zip([None, *pool], pool, strict=False):
        after = words_after(text, number.end)
        modified = bool(question.modifiers & gist(" ".join(_up_to_next(text, number).split()[:3])))
        counts = any(stem(normal(word)) in question.nouns for word in after)
        nouns = after if after and (counts or not modified) else nouns
        fits = any(stem(normal(word)) in question.nouns for word in nouns) * (3.0 if after else 2.2) + 2.0 * modified
        fits = fits or 1.0 * bool(question.nouns & {stem(token.word) for token in tokens(_up_to_next(text, number))})
        labelled = _label_before(text, number, previous) & (question.nouns | question.labels)
        others += bool(after and not fits and not labelled)
        first = number.start == pool[0].start and not (after and not fits) and _direct(text, number, 0)
        scores.append(fits + 2.0 * bool(labelled) + 3.0 * first + _shared(text, number, question))
    if question.nouns and others == len(pool):
        return []
    best = max(scores)
    return [number for number, score in zip(pool, scores, strict=True) if score == best][:1] if best > 0 else list(pool)


def _up_to_next(text: str, number: Quantity) -> str:
    return re.split(r"[\d.,;:!?\n]", text[number.end : number.end + _AROUND], maxsplit=1)[0]


def _stands_alone(text: str, number: Quantity) -> bool:
    """Return True if a reply begins with a sentence that is only a number: "42. She read …"."""
    return (
        not text[: number.start].strip(" *\"'(")
        and re.match(r"[*\"')]*(?:[.!:\n]\s|,? (?:because|since)\b)", text[number.end : number.end + 12]) is not None
    )


def _label_before(text: str, number: Quantity, previous: Quantity | None = None) -> set[str]:
    """Return the stem of the word that labels a number: "edges" of "edges: 12", "the area of it is 12"."""
    begin = max(0, number.start - _AROUND)
    match = re.search(
        r"([^\W\d_][\w-]*)(?:\s(?:of|in|for) (?:the |a |an )?\w+)?\s*(?:=|:|\bis|\bare|\bwas|\()\s*(?:about|approximately|equal to)?\s*[$~]?$",
        text[begin : number.start],
    )
    if match is None:
        return set()
    if previous is not None and text[previous.end : begin + match.start()] in ("", " "):
        return set()  # "535 members: 100 in the House": the label belongs to the number before it
    return {stem(normal(match[1]))}


def _shared(text: str, number: Quantity, question: Question) -> float:
    """Return how much of the question the clause around a number repeats: its words, the verb before the number."""
    start = max((match.end() for match in _PART.finditer(text, max(0, number.start - 300), number.start)), default=0)
    end = _PART.search(text, number.end, number.end + 300)
    clause = gist(text[max(start, number.start - 300) : end.start() if end else number.end + 300])
    near = gist(text[max(start, number.start - 25) : number.start])
    counted = {skeleton(noun) for noun in question.nouns}
    subject, core = question.subject - counted, question.core - counted
    share = len(subject & clause) / max(1, len(subject))
    return 1.5 * share + 0.5 * bool(core & near)


def _alternatives(text: str, pool: Sequence[Quantity], unit: Unit | None) -> bool:
    """Return True if the first number stands beside another one as an alternative: "12 or 13", "maybe 12, maybe 8"."""
    first = pool[0]
    if _is_left_side(text, first):  # "100/5 = 5A/5, or 20 = A": another form of the same
        return False
    for number in quantities(text):
        if number.start == first.start or equal(number, first, unit):
            continue
        before, between = sorted((first, number), key=lambda item: item.start)
        gap = text[before.end : between.start]
        if (
            len(gap) < 40
            and _OR_BEFORE.search(gap)
            and not re.search(r"[.;!?\n]\s", gap)
            and not _is_operand(text, before)
        ):
            return True
        if len(gap) < 40 and re.match(r"[^.;!?]*\b(?:maybe|perhaps|possibly)\s*$", gap, re.IGNORECASE):
            return True
    return False
