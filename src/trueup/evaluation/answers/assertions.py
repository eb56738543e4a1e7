"""The parts of a plain reply that assert something: sentences, final-answer marks, corrections, negations, reasons.

A reply is read as people read it: what comes after "the answer is" or "####" is the answer; what follows "wait, no,"
replaces what stood before; what is denied, supposed, asked or ascribed to others is not asserted; a reason or a
parenthesis explains an answer that is given outside of it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

Span = tuple[int, int]

# --- Words -------------------------------------------------------------------------------------------------------------

ARTICLES = frozenset({"the", "a", "an"})
_FUNCTION_WORDS = frozenset(
    """
    a an the this that these those it its it's i you he she we they him her them his their my your our me us one ones
    is are was were be been being am do does did doing done has have had having there here what which who whom whose
    when where why how of in on at to for from by with as into onto about and or but so if then than not no yes very
    also just only please both all some any many much more most such own same each every other another per via up out
    off over under down between
    """.split()
)
_TOKEN = re.compile(r"[^\W_]+(?:[_'\u2019][^\W_]+)*(?:\+{1,2}|#)?(?![^\W_])|[^\W_]+|_+")


@dataclass(frozen=True, slots=True)
class WordToken:
    """A word of a text: its normal form (lower case, no accents, no possessive ending) and its place."""

    word: str
    start: int
    end: int


@cache
def normal(word: str) -> str:
    """Return a word in lower case without accents, apostrophes and a possessive 's."""
    word = re.sub(r"'s$", "", word.casefold())
    spread = unicodedata.normalize("NFKD", word.translate(_LETTERS))
    return "".join(char for char in spread if not unicodedata.combining(char)).replace("'", "")


_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"})


def tokens(text: str) -> list[WordToken]:
    """Return the words of a text in any script, in order."""
    return [WordToken(normal(match[0]), *match.span()) for match in _TOKEN.finditer(text)]


def stem(word: str) -> str:
    """Return a word without its regular English ending: "marbles" and "marble", "sold" alone stays as it is."""
    for ending in ("ing", "ies", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def skeleton(word: str) -> str:
    """Return a word's stem without its vowels but the first letter, which irregular forms share: began, begin."""
    base = stem(word)
    return base[:1] + re.sub(r"[aeiouy]|(.)(?=\1)", "", base[1:]) if base.isascii() else base


def gist(text: str) -> set[str]:
    """Return the skeletons of a text's words that carry its meaning, to see how much of a question it repeats."""
    return {skeleton(token.word) for token in tokens(text) if token.word not in _FUNCTION_WORDS}


def content(text: str) -> list[str]:
    """Return the stems of a text's words that carry its meaning: all except articles, pronouns, prepositions and such."""
    return [stem(token.word) for token in tokens(text) if token.word not in _FUNCTION_WORDS]


# --- Sentences ---------------------------------------------------------------------------------------------------------

_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Mt|vs|etc|e\.g|i\.e|approx|ca|cf|no|No|Nr|Inc|sq|cu|U\.S|[A-Z])|^[a-z])\.$"
)
_END = re.compile(r"[.!?]+[\"')\]]*(?=\s)|[。！？]+[」』\"]?|\n+")


def is_abbreviation(text: str, end: int) -> bool:
    """Return True if the period before `end` belongs to an abbreviation or an initial, such as "Dr." or "J."."""
    return _ABBREVIATION.search(text[max(0, end - 8) : end]) is not None


def sentences(text: str) -> list[Span]:
    """Return the places of the sentences of a text; a line ends a sentence, an abbreviation's or decimal point does not."""
    spans: list[Span] = []
    start = 0
    for match in _END.finditer(text):
        end = match.end()
        following = text[end : end + 2].lstrip()[:1]
        if match[0][0] == "." and (is_abbreviation(text, end) or following.islower()):
            continue
        if text[start:end].strip():
            spans.append((start, end))
            start = end
    if text[start:].strip():
        spans.append((start, len(text)))
    return spans


# --- The final part of a reply: corrections and marks ------------------------------------------------------------------

_LEAD = r"(?:^|(?<=[.!?…;:,\u2014\u2013\n-])|(?<=[.!?…;:,\u2014\u2013\n-][\"')\s])|(?<=\bbut\s))"
_CORRECTION = re.compile(
    rf"{_LEAD}(?:(?:oh|ah|hmm+|no|oops|sorry|and|but|well),?\s+)?"
    r"(?:wait|hold on|hang on|scratch that|strike that|correction|oops|whoops|my mistake|my bad|on second thoughts?"
    r"|i mean(?:t)?|i misspoke|i stand corrected|make that|or rather|sorry|apologies|actually|in fact|(?<![,:]\s)(?<!but\s)no"
    r"|let me (?:re-?\w+|correct|redo|double[- ]check|verify|check|fix|think again)"
    r"|(?:i|i've|i have) made (?:a|an) (?:mistake|error)|that(?:'s| is| was) (?:wrong|not right|incorrect|a mistake)"
    r"|that should be|it should be)\b(?=[\s,.:;!\u2014-])[,.:;!\s\u2014-]*",
    re.IGNORECASE,
)
_ANSWER = r"\b(?:answer|result|solution|conclusion|antwort|l[öo]sung|ergebnis|respuesta|resultado|r[ée]ponse|resposta|risposta)"
_MARK = re.compile(
    rf"{_ANSWER}\b(?:\s+(?:to|for|of)\s[^.:\n?]{{1,80}}?)?\s*"
    r"(?:(?:is|would be|should be|must be|will be|was|therefore|thus|then|ist|lautet|es|est|é|è)\b(?!n't)\s*[:=]?|[:=]|->|→)"
    rf"|^\W*(?:the )?(?:final |correct )?{_ANSWER}\W*$|答案(?:是|为|[:：])+|答えは|⟦",
    re.IGNORECASE | re.MULTILINE,
)


def with_marks(reply: str) -> str:
    r"""Return a reply in which `\boxed{X}`, `#### X` and `<answer>X</answer>` are written as ⟦X⟧."""
    text = re.sub(r"<(answer|final)>(.*?)</\1>", r" ⟦\2⟧ ", reply, flags=re.DOTALL | re.IGNORECASE)
    text = re.sub(r"(?m)^[ \t]*#{4}[ \t]*(?:answer[ \t]*:)?[ \t]*([^\n]+)$|(?<=\s)####[ \t]*([^\n]+)$", r"⟦\1\2⟧", text)
    for command in ("\\boxed", "\\fbox"):
        text = _with_boxes(text, command)
    return text


def _with_boxes(text: str, command: str) -> str:
    parts = text.split(command)
    result = parts[0]
    for part in parts[1:]:
        inner, rest = braced(part.lstrip())
        result += f"⟦{inner}⟧{rest}" if inner is not None else part
    return result


def braced(text: str) -> tuple[str | None, str]:
    """Return the content of the braces that a text begins with, and the rest; None where it has none."""
    if not text.startswith("{"):
        return None, text
    depth = 0
    for index, char in enumerate(text):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if depth == 0:
            return text[1:index], text[index + 1 :]
    return text[1:], ""


_TRIED = 8
"""The number of corrections, and of marks, that are tried from the end: a reply of nothing else costs no more time."""


def final_part(text: str, answers: Callable[[str], bool]) -> str:
    """Return the part of a plain reply that decides: after its last correction, and in it what its last mark holds.

    Args:
        text: the reply, with marks as ⟦X⟧.
        answers: True for a text that gives an answer of the expected kind; parts without one decide nothing.
    """
    for match in list(_CORRECTION.finditer(text))[: -_TRIED - 1 : -1]:
        if match.start() > 0 and answers(text[: match.start()]) and answers(text[match.end() :]):
            text = _without_comment(text[match.end() :], answers)
            break
    for match in list(_MARK.finditer(text))[: -_TRIED - 1 : -1]:
        part = _marked(text, match)
        if answers(part):
            return part
    return re.sub("[⟦⟧]", " ", text)


def _without_comment(text: str, answers: Callable[[str], bool]) -> str:
    """Return a correction without a first sentence about the mistake: "that's the participle. The past is swam."."""
    spans = sentences(text)
    if (
        len(spans) > 1
        and re.match(r"\s*(?:that|this)(?:'s| is| was)\b", text, re.IGNORECASE)
        and answers(text[spans[0][1] :])
    ):
        return text[spans[0][1] :]
    return text


def _marked(text: str, mark: re.Match[str]) -> str:
    rest = text[mark.end() :]
    if mark[0] == "⟦":
        return rest.partition("⟧")[0]
    rest = re.sub("[⟦⟧]", " ", rest[:2000]).lstrip(" *_\n:")
    spans = sentences(rest)
    return rest[slice(*spans[0])] if spans else ""


# --- What is not asserted ----------------------------------------------------------------------------------------------

_SCOPE_END = re.compile(
    r"[,;:!?\n()\u2014\u2013]|\.(?=\s|$)|\s-\s|\b(?:but|however|yet|because|since|although|then|sondern|sino|mais|mas)\b",
    re.IGNORECASE,
)
_NOT_DENIED = r"not only|not just|not to mention|no doubt|without (?:a |any )?doubt|nothing (?:other than|but)|no (?:one )?other than|none other than|no less than|no wonder|not surprisingly"
_DENIED = re.compile(
    rf"(?P<idiom>\b(?:{_NOT_DENIED})\b)|(?:\b(?:not|never|cannot|neither|nor|no(?!\s+(?:it|that)(?:'s|\s+is)\b)|none|without|rather than|instead of"
    r"|unlike|other than|as opposed to|contrary to|except(?: for)?|apart from|far from|anything but|nicht|non(?!-)|keine?[nrms]?"
    r"|n[ãa]o|pas|wrong to say|incorrect to say|false that|refuse)\b|n't\b|\bcant\b|\bisnt\b|不是|并非)",
    re.IGNORECASE,
)
_SUPPOSED = re.compile(
    r"\b(?:try|trying)\b|"
    r"\b(?:if|whether|unless|suppose|assuming)\b(?! (?:so|not)\b)"
    r"|\b(?:many|some|most|people|others|they|everyone|you)\b[^,.;:\n]{0,30}\b(?:thinks?|believes?|says?|assumes?|claims?|guess|expects?|argues?|confuse)\b"
    r"|\bi (?:\w+ )?(?:used to (?:think|believe|say)|(?:first |initially |originally |once |always )?(?:thought|assumed|believed|guessed)|was going to say)\b"
    r"|\b(?:often|sometimes|commonly|frequently|usually) (?:mistaken|confused|thought|believed|assumed|mixed up)\b",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"\b(?:because|since|due to|given that|considering|owing to|thanks to|seeing that)\b|(?<=,)\s(?:as|given)\b",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(r"[,:;\n!?\u2013\u2014]|\.(?=\s|$)")
_SENTENCE_END = re.compile(r"\.(?=\s|$)|[;\n!?\u2013\u2014]")
_COMPARED = re.compile(
    r"\b(?:(?<!other )than|compared (?:to|with)|ahead of|followed by|(?:just |right )?(?:after|before)|next to|as well as|along with|similar to)\b",
    re.IGNORECASE,
)
_ASKING = re.compile(
    r"\s*[\"']?(?:what|which|who|whom|whose|when|where|why|how|is|are|was|were|do|does|did|can|could|would|will|should|has|have|or)\b",
    re.IGNORECASE,
)


def _scoped(text: str, pattern: re.Pattern[str]) -> list[Span]:
    spans: list[Span] = []
    for match in pattern.finditer(text):
        if match.groupdict().get("idiom") or (spans and match.start() < spans[-1][1]):
            continue
        end = _SCOPE_END.search(text, match.end())
        spans.append((match.start(), end.start() if end else len(text)))
    return spans


def questions_in(text: str) -> list[Span]:
    """Return the places of sentences that ask; a lone guess such as "Paris?" does not ask."""
    spans = sentences(text)
    return [
        (start, end)
        for start, end in spans
        if text[start:end].rstrip(" \"')\n").endswith(("?", "？"))
        and (len(spans) > 1 or _ASKING.match(text, start) is not None)
    ]


def unasserted(text: str, *, denials: bool = True) -> list[Span]:
    """Return the places of a text that are denied (unless `denials` is False), supposed, ascribed to others, or asked."""
    denied = _scoped(text, _DENIED) if denials else []
    return sorted(denied + _scoped(text, _SUPPOSED) + questions_in(text))


def reasons(text: str) -> list[Span]:
    """Return the places of a text that give a reason or stand in parentheses."""
    spans = [match.span() for match in re.finditer(r"\([^()]*\)|\[[^\[\]]*\]", text)]
    for match in _REASON.finditer(text):
        before = text[max(0, match.start() - 100) : match.start()]
        # "Because 9 × 9 = 81, the root is 9": before the comma; "the root is 9, because …": to the end of the sentence.
        begins = not before.rpartition("\n")[2].strip() or before.rstrip().endswith((".", "!", "?", " and"))
        end = (_CLAUSE_END if begins else _SENTENCE_END).search(text, match.end())
        spans.append((match.start(), end.start() if end else len(text)))
    return sorted(spans)


def comparisons(text: str) -> list[Span]:
    """Return the places of a text that name something to compare with: "than Saturn", "followed by Adams"."""
    return _scoped(text, _COMPARED)


def inside(place: int, spans: list[Span]) -> bool:
    """Return True if a place lies in one of the spans."""
    return any(start <= place < end for start, end in spans)
