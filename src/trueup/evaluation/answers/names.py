"""Answers in words: names, terms, phrases, and the rules by which a reply asserts one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

from trueup.evaluation.answers.assertions import (
    ARTICLES,
    Span,
    WordToken,
    comparisons,
    content,
    final_part,
    gist,
    inside,
    is_abbreviation,
    normal,
    reasons,
    sentences,
    skeleton,
    stem,
    tokens,
    unasserted,
)
from trueup.evaluation.answers.question import Question, asks_for_form

_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "å": "aa", "Å": "Aa"})
_LEADING = re.compile(
    r"\W*(?:(?:yes|no|well|so|sure|ok|okay|hmm|oh|right|of course|certainly|absolutely|indeed)\b[,.!:\s]+)*"
    r"(?:(?:i(?:'m| am) (?:not |quite |fairly |pretty )*(?:sure|certain)[^,]{0,20},?\s*(?:but )?)?(?:i (?:think|believe|guess|would say|'d say)\s+(?:that\s+)?|it seems (?:that )?)?)"
    r"(?P<pronoun>(?:it|that|this|these|those|they|there|he|she|the answer|the correct answer)(?:'s|'re|\s(?:is|are|was|were|would be|must be|has to be))(?:\s(?:called|named|known as|probably|likely|definitely|actually|simply))*\s)?",
    re.IGNORECASE,
)
_GREETING = re.compile(
    r"\W*(?:sure|certainly|of course|absolutely|great|good question|hello|hi|thanks?|thank you|okay|ok|yes|no|well|hmm+|interesting|sorry|apologies|unfortunately"
    r"|let's|let me|here)\b[^.:]{0,60}[.!:]?\W*$",
    re.IGNORECASE,
)
_OR_AFTER = re.compile(
    r"[\"')]*(?:\s?\([^()]{0,40}\))?(?P<comma>,)?\s*(?:/\s?|\b(?:or|oder|ou)\s+)(?!so\b|more\b|simply\b|rather\b|else\b|just\b|short\b)(?:the |an? |in )?(?P<next>(?:[^\W_][\w'-]*\s?){1,3})"
)
_OR_BEFORE = re.compile(
    r"(?P<previous>(?:[^\W_][\w'-]*\s?){1,3})[\"')]*(?P<comma>,)?\s*(?:/|\b(?:or|oder|ou))\s*(?:(?:maybe|perhaps|possibly|even|the|an?|in|it's|is it)\s+)*[\"'(]*$"
)
_HEDGE = re.compile(
    r"\b(?:maybe|perhaps|possibly|might be|may be|could be|either|possible|candidates?|options?)\b", re.IGNORECASE
)
_ALIAS = re.compile(
    r"(?:\b(?:known|called|named|referred|spelled|written|abbreviated|also|aka|i\.e\.|that is|namely|formerly|now|or|in english|meaning|means|=)\b[^.;]{0,30}|\(|,\s|:\s|by\s(?:the\s)?)$",
    re.IGNORECASE,
)
_PASSIVE = re.compile(r"\b(?:by|von|por|par|da)\s(?:the\s|an?\s)?(?:[a-z]+\s){0,3}$", re.IGNORECASE)
_WHERE = re.compile(
    r"\bwhere\b|\b(?:in|on) (?:which|what)\b|\bwhich (?:american |european )?(?:city|country|state|continent|town)\b",
    re.IGNORECASE,
)
# The other side of a gift, sale or conquest: who is asked for, by the question's verb, and the prepositions of the others.
_RECEIVES = re.compile(
    r"\b(?:receiv\w+|got|gets?|was given|were given|were? offered|bought|buys?|purchased?|acquired?|inherit\w+|borrow\w+|learn\w+|accept\w+|recipient)\b",
    re.IGNORECASE,
)
_GIVES = re.compile(
    r"\b(?:gave|gives?|giv(?:en|er|ing)|donat\w+|present(?:ed)?|s[eo]nd|sent|s[eo]ld?|sells?|lent|lends?|gifted|grant\w+|ced\w+|taught|offer\w+)\b",
    re.IGNORECASE,
)
_PARTY = r"\s(?:the\s)?(?:(?:people|government|king|queen|emperor|nation|country|state)s? of (?:the )?)?$"
_FROM = re.compile(rf"\b(?:from|by){_PARTY}", re.IGNORECASE)
_TO = re.compile(rf"\b(?:to|for){_PARTY}", re.IGNORECASE)


def names(text: str, key: str, keys: Sequence[str], question: Question) -> bool:
    """Return True if a reply's answer is the accepted one, given in words.

    Args:
        text: the reply in plain notation, with marks as ⟦X⟧.
        key: the accepted answer to look for.
        keys: all accepted answers: another one beside it ("pound or pounds") does not contradict it.
        question: the question.
    """

    def answers(part: str) -> bool:
        rest = _LEADING.sub("", part, count=1)
        return bool(mentions(part, key)) or bool(question.foreign(rest))

    decisive = final_part(text, answers)
    places = _asserted(decisive, key, keys, question)
    return bool(places) and not _another_first(decisive, places[0], key, question)


@cache
def _words(key: str, question: str) -> tuple[tuple[str, ...], ...]:
    """Return the spellings of an accepted answer, each joined from its words: with umlauts as ae, in the other number.

    An answer in the other number is no spelling of it where the question names it: "cat" is no plural of "cat".
    """
    plain = [token.word for token in tokens(key)]
    plain = [word for word in plain if word not in ARTICLES] or plain
    spellings = [
        tuple(plain),
        tuple(normal(part) for part in key.translate(_UMLAUTS).split() if normal(part) not in ARTICLES),
    ]
    if plain and key[:1].islower() and plain[-1].isalpha() and len(plain[-1]) > 2:
        asked = {token.word for token in tokens(question)}
        others = [] if asks_for_form(question) else _other_number(plain[-1])
        spellings += [(*plain[:-1], other) for other in others if other not in asked]
    return tuple(dict.fromkeys(spellings))


def _other_number(word: str) -> list[str]:
    if word.endswith("ies"):
        return [word[:-3] + "y"]
    if word.endswith("s") and not word.endswith("ss"):
        return [word[:-1]]
    if re.search(r"(?:s|x|z|ch|sh)$", word):
        return [word + "es"]
    return [word[:-1] + "ies"] if re.search(r"[^aeiou]y$", word) else [word + "s"]


def mentions(text: str, key: str, question: str = "") -> list[Span]:
    """Return the places at which a text names an accepted answer.

    Words are compared without case, accents, articles and punctuation, and whether they are written together or apart:
    "semi-colon" is "semicolon". In a script without spaces the characters are compared.
    """
    if any(unicodedata.category(char) == "Lo" for char in key):
        squeezed = re.sub(r"\s", "", key)
        pattern = r"\s*".join(map(re.escape, squeezed))
        return [match.span() for match in re.finditer(pattern, text)]
    words = tokens(text)
    spellings = {"".join(spelling) for spelling in _words(key, question) if spelling}
    keep = all(word in ARTICLES for spelling in _words(key, question) for word in spelling)
    if not keep:
        words = [token for token in words if token.word not in ARTICLES]
    longest = max(map(len, spellings), default=0)
    result: list[Span] = []
    for index, first in enumerate(words):
        joined = ""
        for token in words[index : index + longest]:
            joined += token.word
            if len(joined) > longest:
                break
            if joined in spellings and not _is_part_of_word(text, first):
                result.append((first.start, token.end))
    return result or _full_name(words, key)


def _is_part_of_word(text: str, first: WordToken) -> bool:
    """Return True inside of a compound that denies the word, such as "non-metal"."""
    return (
        re.search(r"\b(?:non|anti|un|counter|pseudo)-$", text[max(0, first.start - 8) : first.start], re.IGNORECASE)
        is not None
    )


def _full_name(words: Sequence[WordToken], key: str) -> list[Span]:
    """Return the places of a person's name with a middle name: "Neil Alden Armstrong" for "Neil Armstrong"."""
    parts = [normal(part) for part in re.findall(r"[^\W\d_]+", key)]
    if len(parts) < 2 or not all(part[:1].isupper() for part in re.findall(r"[^\W\d_]+", key)):
        return []
    return [
        (a.start, c.end)
        for a, b, c in zip(words, words[1:], words[2:], strict=False)
        if len(parts) == 2
        and a.word == parts[0]
        and c.word == parts[1]
        and b.word.isalpha()
        and b.end - b.start > 0
        and b.word not in ("and", "or", "of")
    ]


_TRIED = 40
"""The number of an answer's mentions that are tried: a reply that repeats it without end costs no more time."""


def _asserted(text: str, key: str, keys: Sequence[str], question: Question) -> list[Span]:
    """Return the places at which a text asserts an accepted answer: not denied, supposed, asked, or one of several."""
    places = mentions(text, key, question.text)[:_TRIED]
    if not places:
        return []
    denied = unasserted(text, denials=not question.is_negated) + _joined_denials(text)
    compared = comparisons(text)
    return [
        place
        for place in places
        if not inside(place[0], denied)
        and not inside(place[0], compared)
        and not (not question.is_negated and _denied_after(text, place, question))
        and not _is_alternative(text, place, keys, question)
        and not _has_other_role(text, place, question)
        and not _owns_another(text, place, question)
    ]


def _owns_another(text: str, place: Span, question: Question) -> bool:
    """Return True for "Shakespeare's contemporary Marlowe": the answer only tells who the named one is."""
    if not text[: place[1]].endswith("'s") or not text[place[1] : place[1] + 2].strip():
        return False
    return bool(_other_names(text[place[1] : place[1] + 60], question))


def _joined_denials(text: str) -> list[Span]:
    return [match.span() for match in re.finditer(r"(?:不是|并非|不)[^，。,.]*", text)]


def _denied_after(text: str, place: Span, question: Question) -> bool:
    """Return True for "Paris is wrong", "Paris isn't the capital": what is denied is what the question asks."""
    after = text[place[1] : place[1] + 120]
    if re.match(
        r"[\"')]*\s(?:is|was|would be)(?:n't| not)? (?:wrong|incorrect|false|a (?:common )?(?:mistake|misconception))\b",
        after,
        re.IGNORECASE,
    ):
        return True
    denial = re.match(
        r"[\"')]*(?:\s(?:is|was|are|were|does|did|has|would|can|could)(?:n't| not|\snever)\b)(?! only| just)([^.;!?\n,]*)",
        after,
        re.IGNORECASE,
    )
    if denial is None:
        return False
    return not content(denial[1]) or bool(gist(denial[1]) & (question.subject | gist("right correct answer")))


def _is_alternative(text: str, place: Span, keys: Sequence[str], question: Question) -> bool:
    """Return True where the answer stands beside another one that is not accepted: "Paris or Lyon", "maybe Paris, maybe Lyon".

    After a comma, "or" gives another name for the same ("the femur, or thigh bone"), unless the sentence hedges.
    """
    start, end = next((span for span in sentences(text) if span[0] <= place[0] < span[1]), (0, len(text)))
    sentence = text[start:end]
    hedges = len(_HEDGE.findall(sentence))
    if hedges >= 2 or re.search(r"\beither\b[^.]*\bor\b", sentence, re.IGNORECASE):
        return True
    after = _OR_AFTER.match(text, place[1], end)
    before = _OR_BEFORE.search(text, max(start, place[0] - 60), place[0])
    in_list = text[start : place[0]].rstrip().endswith(",") or hedges > 0
    if after and (not after["comma"] or in_list) and not _accepted_at(after["next"], keys):
        return True
    if (
        before
        and (not before["comma"] or "," in before["previous"] or hedges > 0)
        and not _accepted_at(before["previous"], keys)
    ):
        return True
    if re.search(
        r"\b(?:one|which|either|both) of (?:the )?(?:[\w-]+ (?:and|or) (?:the )?)?$",
        text[start : place[0]],
        re.IGNORECASE,
    ):
        return True
    if _is_joined_option(text, (start, end), question):
        return True
    return hedges > 0 and re.search(r",.*\b(?:or|and)\b", text[place[1] : end]) is not None


def _is_joined_option(text: str, sentence: Span, question: Question) -> bool:
    """Return True where a question offers alternatives and the reply joins them: "a carrot and a cherry"."""
    if question.alternatives is None:
        return False
    first, second = (gist(side) for side in question.alternatives)
    part = text[slice(*sentence)]
    sides = [
        (token, skeleton(token.word) in first - second)
        for token in tokens(part)
        if skeleton(token.word) in first ^ second
    ]
    return any(
        is_first != other
        and re.fullmatch(r"\W*\b(?:and|or)\s+(?:\w+\s+){0,3}", part[token.end : following.start]) is not None
        for (token, is_first), (following, other) in pairwise(sides)
    )


def _accepted_at(words: str, keys: Sequence[str]) -> bool:
    return any(mentions(words, key) for key in keys)


def _has_other_role(text: str, place: Span, question: Question) -> bool:
    """Return True where the answer is the other side of a gift or sale: "from the United States", asked who received it."""
    before = text[max(0, place[0] - 60) : place[0]]
    receives, gives = _RECEIVES.search(question.asking), _GIVES.search(question.asking)
    asks_giver = bool(gives) and not receives
    if receives and not re.search(
        r"\b(?:receiv\w+|bought|purchased) (?:from|of)\b.*\b(?:whom|who|which)\b|^from", question.asking, re.IGNORECASE
    ):
        return _FROM.search(before) is not None
    return asks_giver and _WHO_GAVE.search(question.asking) is not None and _TO.search(before) is not None


_WHO_GAVE = re.compile(
    r"\b(?:who|which \w+|what \w+)\s(?:\w+ly )?(?:gave|gives?|donated|presented|sent|sold|sells|lent|gifted|granted|ceded|taught|offered)\b",
    re.IGNORECASE,
)


# --- The first assertion -----------------------------------------------------------------------------------------------

_CLAUSE = re.compile(
    r"[;:(\u2014\u2013\n]|[.!?](?=\s|$)|,?\s(?:but|however|while|whereas|although|though|yet|and|when|aber|pero|mais)\s|,\s",
    re.IGNORECASE,
)


def _another_first(text: str, place: Span, key: str, question: Question) -> bool:
    """Return True if the text asserts something else as its answer before it comes to the accepted one."""
    for span in unasserted(text):  # what is denied is no other answer
        text = text[: span[0]] + " " * (span[1] - span[0]) + text[span[1] :]
    explained = next((span for span in reasons(text) if inside(place[0], [span])), None)
    if explained and (text[explained[0]] != "(" or question.asks_for_form):
        return bool(question.foreign(_LEADING.sub("", text[: explained[0]] + " " + text[explained[1] :], count=1)))
    start = 0
    ends = [
        match
        for match in _CLAUSE.finditer(text[: place[0] + 1])
        if match.end() <= place[0] and not is_abbreviation(text, match.end())
    ]
    for match in [*ends, None]:
        end = match.start() if match else place[0]
        if match and _answers_otherwise(text, (start, end), place, key, question):
            return True
        if match is None:
            return _other_name_before(text, (start, place[0]), place, key, question)
        start = match.end()
    return False


def _answers_otherwise(text: str, clause: Span, place: Span, key: str, question: Question) -> bool:
    """Return True if a clause before the accepted answer already answers the question, with other words."""
    part = text[slice(*clause)]
    if not part.strip(" \n\"'*,.") or _GREETING.match(part.strip()):
        return False
    lead = _LEADING.match(part)
    rest = part[lead.end() :] if lead else part
    words = question.foreign(rest)
    if not words or re.match(
        r"\s*(?:in|on|at|after|before|during|according|from|for|with|as|to|like|of|under|by|although|while|when|if|even|despite)\b",
        rest,
        re.IGNORECASE,
    ):
        return False
    between = text[clause[1] : place[0]]
    if (
        _ALIAS.search(text[max(clause[0], place[0] - 45) : place[0]])
        and not re.search(r"[.!?;\n]\s", between)
        and _same_thing(text, clause, place, question)
    ):
        return False
    if lead and lead["pronoun"]:
        return not (re.match(r"an?\s", rest, re.IGNORECASE) and len(words) > 1) and _is_short(rest)
    if clause[0] == 0 and _is_short(part) and not _has_verb(part):
        return not key[:1].isupper() or all(
            word[:1].isupper() for word in re.findall(r"[^\W\d_]+", part) if content(word)
        )
    if key[:1].isupper():
        return question.asks_core(part) and bool(_other_names(part, question))
    return question.overlap(part) >= 0.6


def _same_thing(text: str, clause: Span, place: Span, question: Question) -> bool:
    """Return True where the accepted answer renames what the clause names: "København, known as Copenhagen"."""
    gap = text[clause[1] : place[0]]
    if question.asks_for_form:
        return False
    named = re.search(
        r"\b(?:known|called|named|spelled|written|also|i\.e\.|that is|namely|formerly|in english|or)\b",
        gap,
        re.IGNORECASE,
    )
    return (
        named is not None
        or (
            not _other_names(gap, question)
            and re.fullmatch(r"[,:(\s]*(?:or |the |an? )?", gap) is not None
            and not _other_names(text[slice(*clause)], question)
        )
        or _WHERE.search(question.asking) is not None
    )


def _is_short(part: str) -> bool:
    return len(tokens(part)) <= 6


def _has_verb(part: str) -> bool:
    return (
        re.search(r"\b(?:is|are|was|were|has|have|had|do|does|did|can|could|will|would|[a-z]+ed)\b", part) is not None
    )


def _other_name_before(text: str, clause: Span, place: Span, key: str, question: Question) -> bool:
    """Return True if the clause of an accepted name begins with another name: "Pompey crossed it to attack Caesar"."""
    if not key[:1].isupper() or not question.asking:
        return False
    before = text[clause[0] : place[0]]
    if _PASSIVE.search(before) or _ALIAS.search(before[-45:]) or _WHERE.search(question.asking):
        return False
    if re.search(
        r"\b(?:is|are|was|were|named|called|ist|war|heißt|est|es|era|foi|é|è)\s(?:the\s|an?\s|der\s|die\s|das\s)?(?:[a-z]+\s){0,3}$",
        before,
    ):
        return False
    return bool(_other_names(before, question)) and question.overlap(before) > 0


_NAME = re.compile(r"[A-ZÀ-ÖØ-Þ][\w'.-]*(?:\s(?:(?:de|da|di|van|von|of|the|del|la)\s)?[A-ZÀ-ÖØ-Þ][\w'-]*)*")
_DEMONYM = re.compile(r"(?:an|ish|ese|ic|ch|ek|sh)$")


def _other_names(text: str, question: Question) -> list[str]:
    """Return the proper names in a text that are not the question's: no sentence's first word, initials, nationality."""
    result: list[str] = []
    asked = {stem(token.word) for token in tokens(question.text)}
    initials = {
        "".join(word[0] for word in name[0].split()) for name in _NAME.finditer(question.text) if " " in name[0]
    }
    for match in _NAME.finditer(text):
        words = content(match[0])
        following = text[match.end() : match.end() + 2]
        if not words or set(words) & asked or match[0].strip(".") in initials or match[0].replace(".", "") in initials:
            continue
        if " " not in match[0] and _DEMONYM.search(match[0]) and following[:1] == " " and following[1:].islower():
            continue
        if match[0] in ("I", "It", "The"):
            continue
        result.append(match[0])
    return result
