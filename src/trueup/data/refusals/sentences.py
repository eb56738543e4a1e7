"""A reply's own sentences: without code, quotations and what it repeats from the prompt."""

from __future__ import annotations

import re

_APOSTROPHES = str.maketrans(
    dict.fromkeys("\u2018\u2019\u02bc\u00b4\u0060", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d\u300e\u300f", '"')
)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
# Text that does not speak for the model: reported speech and quotations.
_REPORTED = re.compile(r"\b(?:says?|said|writes?|wrote|reads?|repl(?:y|ies)|answers?|means?)(?: \w+)?: [^.\n]*")
_QUOTED = re.compile(r"""(?<!\w)'(?:[^'\n]|\b'\b){1,300}'(?!\w)|["][^"]{0,300}["]""")
# Sentences in which repetitions are looked for: a refusal stands before them.
_READ = 12
_END = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])|\n+")

# Text that does not speak for the model: letters, dialogues, verses, songs, remarks on language. Most are known by their
# beginning, the others by a word or a line further on.
_DEAR = (
    r"dear (?!user|friend)|subject:|sure[,.!]* here|(?:hey|hi|hello|hallo|hola|bonjour|salut|olá|oi),? (?!there|i\b)"
    r"[^\W\d_]+[,!]|(?:liebe[rs]?|sehr geehrte\w*|estimad[oa]s?|querid[oa]s?|ch(?:er|ère)s?|mon cher|ma chère"
    r"|prezad[oa]s?|car[oa]s?) (?!utilisat|usu[aá]ri|nutzer|kund|amig|ami\b|freund)[^.!?\n]{1,40}?[,:!]"
    r"|[^\s，。]{1,10}(?:您好|你好)[：:]|(?:亲爱的|親愛的)|[^\s、。]{1,8}(?:様|さん|先生)[\u3000\n、 ]|[\u2014\u2013] ?[^\s]"
)
_SONG = r"[^.!?\n]*\b(?:my love|your love|baby|darling|my heart|your heart|the rain|the night|the moon|goodbye)\b"
_LINE = r"[a-z][^\n.!?:]{3,60}(?=\n)"
_WRITTEN = re.compile(rf"{_DEAR}|{_SONG}|{_LINE}\n{_LINE}")
_CLOSED = re.compile(
    r"\b(?:(?:best|kind) (?:regards|wishes)|sincerely|mit freundlichen grüßen|viele grüße|un cordial saludo|atentamente"
    r"|cordialement|bises|atenciosamente|or (?:\w+ )?(?:shorter|formal\w*|simply)|in english|past tense|more formal)\b"
    r"|此致|敬具"
)
_LATER = re.compile(rf"\n(?:dear\b|[\u2014\u2013] ?[^\s]|{_LINE}\n{_LINE})")
_DIALOGUE = re.compile(r"(?:^|\n|[.?!] )[a-z]+: [^\n]{1,300}?(?:\n|[.?!] )[a-z]+: ")
# A prompt that asks for somebody else's words.
_ASKS_FOR_WORDS = re.compile(
    r"\b(?:translate|rephrase|write|draft|compose|say|text|tweet|message|role-?play|act as|pretend|quote|sentence)\b"
)
_TRANSLATES = re.compile("\\b(?:translat|übersetz|tradu[cizç])|\u7ffb\u8bd1|\u7ffb\u8b6f|\u8a33")


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
    if not prompt:
        return text
    known = f" {_plain_words(prompt.translate(_APOSTROPHES).lower())} "
    for sentence in split(text)[:_READ]:
        words = _plain_words(sentence)
        if words.count(" ") >= 2 and f" {words} " in known:
            text = text.replace(sentence, " ")
    return text.strip()


def _plain_words(text: str) -> str:
    return " ".join(re.findall(r"\w+(?:'\w+)*", text))


def split(text: str) -> list[str]:
    """Return the sentences and lines of a text, without empty ones."""
    return [sentence for part in _END.split(text) if (sentence := part.strip())]


def is_written(text: str) -> bool:
    """Return True if a reply (in lower case) is a letter, a dialogue, a verse or a remark on language."""
    return (
        _WRITTEN.match(text) is not None
        or _CLOSED.search(text) is not None
        or (": " in text and _DIALOGUE.search(text) is not None)
        or ("\n" in text and _LATER.search(text) is not None)
    )


def asks_for_words(prompt: str) -> bool:
    """Return True if a prompt (in lower case) asks for somebody else's words, such as a message or a role."""
    return _ASKS_FOR_WORDS.search(prompt) is not None


def asks_for_a_translation(prompt: str) -> bool:
    """Return True if a prompt (in lower case) asks for a translation."""
    return _TRANSLATES.search(prompt) is not None
