"""Answers that are a letter, yes or no, a symbol or a formula."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

from trueup.evaluation.answers.assertions import WordToken, final_part, inside, normal, sentences, tokens, unasserted
from trueup.evaluation.answers.names import mentions
from trueup.evaluation.answers.question import Question

# --- Yes or no ---------------------------------------------------------------------------------------------------------

_POLARITY = {
    "yes": True, "true": True, "correct": True, "right": True, "yep": True, "yeah": True, "ja": True, "oui": True,
    "no": False, "false": False, "incorrect": False, "wrong": False, "nope": False, "nein": False, "non": False,
}  # fmt: skip
_NOT = re.compile(r"\b(?:not|never|no|cannot|neither|nor|nicht|kein\w*|pas)\b|n't\b", re.IGNORECASE)


def polarity(key: str) -> bool | None:
    """Return True for an accepted answer yes or true, False for no or false, None for another one."""
    return {"yes": True, "true": True, "no": False, "false": False}.get(normal(key.strip(" .!\"'")))


def stated_polarity(text: str, question: Question) -> bool | None:
    """Return True if a reply says yes, False if it says no, None where it says neither or both."""

    def stated(part: str) -> bool | None:
        for span in sentences(part):
            value = _polarity_of(part[slice(*span)], question)
            if value is not None:
                return value
        return None

    return stated(final_part(text, lambda part: stated(part) is not None))


def _polarity_of(sentence: str, question: Question) -> bool | None:
    words = [token.word for token in tokens(sentence)]
    if not words or sentence.rstrip().endswith("?"):
        return None
    if re.search(r"\b(?:yes and no|yes or no|depends)\b", sentence, re.IGNORECASE):
        return None
    for index, word in enumerate(words):
        if word in _POLARITY and (
            index == 0
            or word in ("true", "false", "correct", "incorrect", "yes", "wrong")
            or words[index - 1] in ("is", "answer", "say")
        ):
            denied = any(before in ("not", "isnt", "arent", "wasnt") for before in words[max(0, index - 3) : index])
            return _POLARITY[word] != denied
    if (
        question.asking
        and question.overlap(sentence) >= 0.6
        and not re.search(r"\b(?:if|whether|maybe|perhaps|might|know|sure)\b", sentence, re.IGNORECASE)
    ):
        return (_NOT.search(sentence) is None) == (_NOT.search(question.asking) is None)
    return None


# --- The letter of a choice --------------------------------------------------------------------------------------------

_LETTER = r"[\"'(\[*]*(?:option\s|choice\s|letter\s)?[\"'(\[*]*([A-Z])(?![\w'+#])(?!-\w)"
_ONLY_LETTER = re.compile(rf"\W*(?:{_LETTER}|([a-z]))[\W_]*$")
_AT_START = re.compile(r"\W*\(?([A-Z])(?:[).:,]|\s*[-\u2013\u2014]\s|\s*\n|\s*$|\)?\s(?:because|since)\b)")
_NAMED = re.compile(
    r"\b(?:option|choice|letter|select|choose|pick|chose|go with|going with|it's|it is|answer is|must be)\s*[:=]?\s*\(?\"?([A-Z])(?![\w'+#])"
    r"|\(?\b([A-Z])\)?,? (?:is|seems|would be|must be) (?:the )?(?:correct|right|best|answer|one|most)\b",
)
_BRACKETED = re.compile(r"\(([A-Z])\)|(?<![\w'])([A-Z])\)")
_ALONE = re.compile(r"(?<![\w'.-])([A-Z])(?![\w'+#-])")


def is_letter(key: str) -> bool:
    """Return True for an accepted answer that is one letter of the alphabet, also as "(B)" or "B."."""
    return re.fullmatch(r"\(?[A-Za-z][).]?", key.strip()) is not None


def chosen_letter(text: str, question: Question) -> str | None:
    """Return the letter that a reply chooses, in upper case; None where it chooses none, or several.

    A letter is looked for after a final-answer mark, as the whole reply, at its start, after "option" or before "is
    correct", in parentheses, and alone; then, where the question lists its options, the text of one is.
    """

    def answers(part: str) -> bool:
        return re.match(rf"\W*{_LETTER}", part) is not None or _ONLY_LETTER.match(part) is not None

    text = re.sub(r"(?<![\w(])(\(?)([a-j])\)(?!\w)", lambda match: f"{match[1]}{match[2].upper()})", text)
    decisive = final_part(text, answers).strip()
    whole = _ONLY_LETTER.match(decisive)
    if whole:
        return (whole[1] or whole[2]).upper()
    denied = unasserted(decisive)
    if (
        decisive != text.strip()
        and (match := re.match(rf"\W*{_LETTER}(?!\s(?:is|was)\b)", decisive))
        and not _several(decisive, match)
    ):
        return match[1]
    for pattern in (_AT_START, _NAMED, _BRACKETED, _ALONE):
        matches = [
            match
            for match in ([pattern.match(decisive)] if pattern is _AT_START else pattern.finditer(decisive))
            if match
            and not inside(match.start(), denied)
            and not _is_word(decisive, match, pattern)
            and not _is_rejected(decisive, match)
        ]
        letters = list(dict.fromkeys(next(part for part in match.groups() if part) for match in matches))
        if letters and not _several(decisive, matches[0]):
            if pattern in (_AT_START, _NAMED) or len(letters) == 1:
                return letters[0]
            return _about_the_asked(decisive, matches, question)
        if letters:
            return None
    named = [
        letter
        for letter, option in question.options.items()
        if any(not inside(place[0], denied) for place in mentions(decisive, option))
    ]
    return named[0] if len(named) == 1 else None


def _about_the_asked(text: str, matches: list[re.Match[str]], question: Question) -> str | None:
    """Return the letter in the sentence that repeats most of the question; None where several do."""
    best: dict[str, float] = {}
    for match in matches:
        start, end = next(span for span in sentences(text) if span[0] <= match.start() < span[1])
        letter = next(part for part in match.groups() if part)
        best[letter] = max(best.get(letter, 0.0), question.overlap(text[start:end]))
    top = [letter for letter, share in best.items() if share == max(best.values()) > 0]
    return top[0] if len(top) == 1 else None


def _is_word(text: str, match: re.Match[str], pattern: re.Pattern[str]) -> bool:
    """Return True where "A" is an article and "I" a pronoun."""
    letter = next(part for part in match.groups() if part)
    return pattern is _ALONE and letter in "AI" and re.match(r"\s+[a-z]", text[match.end() :]) is not None


def _is_rejected(text: str, match: re.Match[str]) -> bool:
    after = text[match.end(match.lastindex or 0) :]
    denial = r"[).\"']*\s(?:(?:is|are|would be|was) (?:wrong|incorrect|false|not)|isn't|cannot|can't)\b"
    return re.match(denial, after, re.IGNORECASE) is not None


def _several(text: str, match: re.Match[str]) -> bool:
    """Return True for "A or B", "A and B", "A/B"."""
    return (
        re.match(r"[)\"'.]*\s*(?:or|and|/|,)\s*\(?[A-Z](?![\w'])", text[match.end() :]) is not None
        or re.search(r"\b[A-Z]\)?\s*(?:or|/)\s*\(?$", text[: match.start()]) is not None
    )


# --- Symbols -----------------------------------------------------------------------------------------------------------

_COMMON_NAMES = {
    ".": "period full stop dot point", "#": "hash pound number hashtag octothorpe", "-": "hyphen dash minus", "/": "slash forward slash",
    "\\": "backslash", "_": "underscore", "|": "pipe vertical bar", "~": "tilde", "^": "caret", "`": "backtick", "'": "apostrophe single quote",
    '"': "quotation mark double quote quote", "!": "exclamation mark exclamation point", "@": "at sign at", "&": "ampersand and sign",
    "*": "asterisk star", "(": "parenthesis opening parenthesis bracket", ")": "closing parenthesis", "[": "square bracket",
    "{": "curly brace brace", "<": "less than", ">": "greater than", "?": "question mark", ",": "comma", ";": "semicolon", ":": "colon",
    "=": "equals equal sign equals sign", "+": "plus plus sign", "%": "percent percent sign percentage sign", "$": "dollar dollar sign",
}  # fmt: skip


def is_symbolic(key: str) -> bool:
    """Return True for an accepted answer without letters and digits, such as "==" or ";"."""
    return bool(key.strip()) and not any(char.isalnum() for char in key)


@cache
def _symbol_named(key: str) -> str | None:
    """Return the punctuation mark that a name names, by Unicode's names and the common ones: semicolon -> ";"."""
    wanted = "".join(token.word for token in tokens(key) if token.word not in ("the", "a", "an"))
    for code in range(33, 127):
        char = chr(code)
        if char.isalnum():
            continue
        if wanted in _names_of(char):
            return char
    return None


@cache
def _names_of(char: str) -> frozenset[str]:
    words = unicodedata.name(char).lower().split()
    full = {"".join(words), "".join(word for word in words if word not in ("sign", "mark"))}
    common = _COMMON_NAMES.get(char, "").split()
    runs = {"".join(common[a:b]) for a in range(len(common)) for b in range(a + 1, min(a + 4, len(common) + 1))}
    return frozenset(full | runs)


def symbol_stands(text: str, key: str) -> bool:
    """Return True if a reply's answer is a symbol: it is nothing else, or the symbol stands alone in it, or is named."""
    symbol = key.strip() if is_symbolic(key) else _symbol_named(key)
    if symbol is None:
        return False
    decisive = final_part(text, lambda part: bool(part.strip())).strip()
    bare = decisive.strip()
    if bare in (
        symbol,
        f'"{symbol}"',
        f"'{symbol}'",
        f"`{symbol}`",
        f"{symbol}.",
        f"`{symbol}`.",
        f'"{symbol}".',
        f"({symbol})",
    ):
        return True
    denied = unasserted(re.sub(re.escape(symbol), lambda match: "x" * len(match[0]), decisive))
    quoted = re.compile(rf"([\"'`(]){re.escape(symbol)}[\"'`)]")
    alone = re.compile(rf"(?<![^\s\"'`(]){re.escape(symbol)}(?![^\s\"'`).,])")
    pattern = quoted if symbol in ".,;:!?'\"()-" else alone
    first = next(
        (
            match
            for match in re.finditer(r"([\"'`(])([^\w\s\"'`]{1,3})[\"'`)]", decisive)
            if not inside(match.start(), denied)
        ),
        None,
    )
    if first is not None:
        return first[2] == symbol
    if any(not inside(match.start(), denied) for match in pattern.finditer(decisive)):
        return True
    if len(symbol) > 1:
        return False
    words = [token for token in tokens(decisive) if not inside(token.start, denied)]
    joined = [
        ("".join(token.word for token in words[index : index + size]))
        for size in (3, 2, 1)
        for index in range(len(words) - size + 1)
    ]
    common = {name for name in _names_of(symbol) if len(name) > 3 or name in ("dot",)}
    return any(part in common for part in joined) and not _other_symbol(words, symbol)


def _other_symbol(words: Sequence[WordToken], symbol: str) -> bool:
    """Return True if the words name another punctuation mark first."""
    for index in range(len(words)):
        for size in (2, 1):
            name = "".join(token.word for token in words[index : index + size])
            if len(name) <= 3:
                continue
            if name in _names_of(symbol):
                return False
            other = _symbol_named(name)
            if other is not None and other != symbol:
                return True
    return False


# --- Formulas ----------------------------------------------------------------------------------------------------------


def is_formula(key: str) -> bool:
    """Return True for an accepted answer that is a formula, such as "2√3", "x^2 + 1" or "(3, -2)"."""
    return re.search(r"[√^=+*×π∞<>≤≥\[\]∪|]|^\(.*\)$|\d[a-z]\b|[\w)]/[\w(]|\w\(", key) is not None


def formula_stands(text: str, key: str) -> bool:
    """Return True if a reply states a formula: the same characters but for spaces, `*` and a leading "x =".

    After the normalisation of Hendrycks et al. 2021 (MATH).
    """
    wanted = _canonical(key)
    if not wanted:
        return False
    decisive = final_part(text, lambda part: bool(re.search(r"\w", part)))
    denied = unasserted(decisive)
    for start, end in sentences(decisive):
        if inside(start + len(decisive[start:end]) - len(decisive[start:end].lstrip()), denied):
            continue
        stated = _squeezed(decisive[start:end])
        if (
            re.search(rf"(?<![\w^√.\-/(]){re.escape(wanted)}(?![\w^/(]|\.\d|[*+-]\w)", stated)
            or stated.strip(".") == wanted
        ):
            return True
    return False


def _squeezed(text: str) -> str:
    text = re.sub(r"\bpi\b", "π", text)
    text = re.sub(r"(?<=[a-z]{2}) (?=[\w(√-])|(?<=[a-z]{2}) (?=[a-z]{2})", "\x00", text)  # words stay apart
    return re.sub(r"\s|\*|×|(?<=\d)·(?=\w)", "", text.replace("{", "").replace("}", "")).replace("\x00", " ")


def _canonical(key: str) -> str:
    squeezed = _squeezed(key).strip(".$ ")
    head, equals, tail = squeezed.partition("=")
    return tail if equals and len(head) <= 2 and "=" not in tail else squeezed
