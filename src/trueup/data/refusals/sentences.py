"""A reply's own sentences: without code, quotations and what it repeats from the prompt."""

from __future__ import annotations

import re

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc\u00b4\u0060", "'") | dict.fromkeys("\u201c\u201d", '"'))
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
# Text that does not speak for the model: reported speech and quotations.
_REPORTED = re.compile(r"\b(?:says?|said|writes?|wrote|reads?|repl(?:y|ies)|answers?|means?)(?: \w+)?: [^.\n]*")
_QUOTED = re.compile(r"""(?<!\w)'(?:[^'\n]|\b'\b){1,300}'(?!\w)|["][^"]{0,300}["]""")
_END = re.compile(r"(?<=[.!?])\s+|\n+")


def own_words(reply: str) -> tuple[str, bool]:
    """Return a reply in lower case, without code and quotations, and True if all of it is one quotation.

    They are removed because a quoted refusal is not the model's own.
    """
    text = _CODE.sub(" ", reply).translate(_APOSTROPHES).lower().strip()
    whole = re.fullmatch(r'"([^"]*)"', text)  # a reply that is all in quotation marks is not a quotation
    text = _REPORTED.sub(" ", whole[1] if whole else _QUOTED.sub(_left_out, text))
    return re.sub(r"[ \t*_]+", " ", text).strip(), whole is not None


def _left_out(match: re.Match[str]) -> str:
    """Return what stands in the place of a quotation: a mark if it was a text that the reply hands over."""
    return " \u2026 " if match[0].count(" ") >= 5 else " "


def without_repetitions(text: str, prompt: str) -> str:
    """Return `text` (lower case) without its sentences of three words or more that also occur in the prompt."""
    known = f" {_plain_words(prompt.translate(_APOSTROPHES).lower())} "
    for sentence in split(text):
        words = _plain_words(sentence)
        if words.count(" ") >= 2 and f" {words} " in known:
            text = text.replace(sentence, " ")
    return text.strip()


def _plain_words(text: str) -> str:
    return " ".join(re.findall(r"\w+(?:'\w+)*", text))


def split(text: str) -> list[str]:
    """Return the sentences and lines of a text, without empty ones."""
    return [sentence for part in _END.split(text) if (sentence := part.strip())]
