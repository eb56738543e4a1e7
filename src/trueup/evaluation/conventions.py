r"""Graders that score as the lm-evaluation-harness does, for numbers that can be compared with published ones.

They are written anew after the files of the harness (https://github.com/EleutherAI/lm-evaluation-harness, 0.4.13.dev0):
`tasks/gsm8k/gsm8k.yaml`, `tasks/hendrycks_math/utils.py`, `tasks/mmlu/flan_cot_zeroshot`, `tasks/mmlu_pro` and
`filters/extraction.py`. What looks odd is kept: strict-match takes the first `#### 42` of a reply and flexible-extract
the last number; "The answer is B" without a full stop is no answer for `choice-strict`, whose pattern leaves out the
last character.

Each takes the reply, the accepted answers and the question, and returns True or False.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence

from trueup.evaluation.answers.assertions import braced
from trueup.evaluation.answers.plain import plain
from trueup.evaluation.answers.question import Question

_NO_ANSWER = "[invalid]"


def _extracted(pattern: str, text: str, which: int) -> str:
    """Return the first (0) or last (-1) match of a pattern: its first group that is not empty, or all of it."""
    matches = list(re.finditer(pattern, text))
    if not matches:
        return _NO_ANSWER
    groups = [group for group in matches[which].groups() if group]
    return (groups[0] if groups else matches[which][0] if not matches[which].groups() else _NO_ANSWER).strip()


# --- GSM8K (Cobbe et al. 2021) ----------------------------------------------------------------------------------------


def gsm8k_strict(reply: str, accepted: Sequence[str], _question: str) -> bool:
    """Return True if the reply's first `#### 42` is the accepted number (the harness's strict-match)."""
    return _same_gsm8k(_extracted(r"#### (\-?[0-9\.\,]+)", reply, 0), accepted)


def gsm8k_flexible(reply: str, accepted: Sequence[str], _question: str) -> bool:
    """Return True if the last number of the reply is the accepted one (the harness's flexible-extract)."""
    return _same_gsm8k(_extracted(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", reply, -1), accepted)


def _same_gsm8k(extracted: str, accepted: Sequence[str]) -> bool:
    return any(_gsm8k_form(extracted) == _gsm8k_form(key) for key in accepted)


def _gsm8k_form(text: str) -> str:
    text = re.sub(r"(?s).*#### ", "", text.replace(",", "").replace("$", ""))
    return re.sub(r"\.$", "", text).lower()


# --- MATH (Hendrycks et al. 2021) -------------------------------------------------------------------------------------


def math_dollars(reply: str, accepted: Sequence[str], _question: str) -> bool:
    """Return True if what stands between the reply's first and last `$`, or else all of it, is the accepted answer."""
    first, last = reply.find("$"), reply.rfind("$")
    answer = reply[first + 1 : last] if first < last else reply
    return any(is_equivalent(answer, boxed(key) or key) for key in accepted)


def math_boxed(reply: str, accepted: Sequence[str], _question: str) -> bool:
    r"""Return True if the reply's last `\boxed{…}` holds the accepted answer."""
    answer = boxed(reply)
    return answer is not None and any(is_equivalent(answer, boxed(key) or key) for key in accepted)


def boxed(text: str) -> str | None:
    r"""Return the content of a text's last `\boxed{…}` or `\fbox{…}`; None where it has none, or it is not closed."""
    if r"\boxed " in text:
        return text.rpartition(r"\boxed ")[2].partition("$")[0]
    for command in (r"\boxed", r"\fbox"):
        place = text.rfind(command)
        if place >= 0:
            inner, rest = braced(text[place + len(command) :])
            closed = inner is not None and text[place:].startswith(f"{command}{{{inner}}}{rest}")
            return inner if closed else None
    return None


def is_equivalent(given: str, key: str) -> bool:
    """Return True if two answers in LaTeX have the same normal form; unequal forms of one value are different."""
    forms = [_math_form(text) for text in (given, key)]
    return given == key if None in forms else forms[0] == forms[1]


def _math_form(text: str) -> str | None:
    r"""Return an answer's normal form: no spaces, units, `\left`, degrees and percent; `\frac12` as `\frac{1}{2}`.

    None where the harness's code raises an error, after which it compares the texts as they are.
    """
    for old, new in (
        ("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""), ("\\right", ""),
        ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", ""),
    ):  # fmt: skip
        text = text.replace(old, new)
    if text.count("\\text{ ") > 1:
        return None
    text = text.partition("\\text{ ")[0].replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if not text:
        return text
    text = f"0{text}" if text.startswith(".") else text
    name, equals, value = text.partition("=")
    text = value if equals and "=" not in value and len(name) <= 2 else text
    if re.search(r"\\sqrt$|\\sqrt(?=\\sqrt)", text):
        return None
    text = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", text).replace(" ", "")
    form = _with_braces(text)
    return None if form is None else _with_fraction("\\frac{1}{2}" if form == "0.5" else form)


def _with_fraction(text: str) -> str | None:
    r"""Return `3/4` as `\frac{3}{4}`, other texts as they are; None for one slash between what are no whole numbers."""
    top, slash, bottom = text.partition("/")
    if not slash or "/" in bottom:
        return text
    try:
        fraction = f"{int(top)}/{int(bottom)}"
    except ValueError:
        return None
    return f"\\frac{{{int(top)}}}{{{int(bottom)}}}" if fraction == text else text


def _with_braces(text: str) -> str | None:
    r"""Return a text with `\frac12` and `\frac1{72}` in braces; None where it ends in `\frac`."""
    head, *parts = text.split("\\frac")
    result = head
    for part in parts:
        if not part:
            return None
        if part[0] == "{":
            result += f"\\frac{part}"
        elif len(part) < 2:
            return text
        elif part[1] == "{":
            result += f"\\frac{{{part[0]}}}{part[1:]}"
        else:
            result += f"\\frac{{{part[0]}}}{{{part[1]}}}{part[2:]}"
    return result


# --- Multiple choice --------------------------------------------------------------------------------------------------

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def choice_strict(reply: str, accepted: Sequence[str], question: str) -> bool:
    """Return True if the letter after "answer is" is right, as strict-match of MMLU with a chain of thought has it."""
    after = "|".join(f"(?<={lead} )(.*)(?=.)" for lead in ("answer is", "The answer:", "The final answer:"))
    return _same_letter(_extracted(after, reply, 0), accepted, question)


def choice_flexible(reply: str, accepted: Sequence[str], question: str) -> bool:
    """Return True if the reply's last `(B)`, or else the last option that it repeats, or the last `: B`, is right.

    This is flexible-extract of MMLU with a chain of thought, with the options that the question lists.
    """
    options = Question.of(plain(question)).options
    letters = "".join(options) or string.ascii_uppercase
    extracted = _extracted(r"(\([A-Z]\))", reply, -1)
    if extracted == _NO_ANSWER and options:
        texts = {_bare(text): letter for letter, text in options.items()}
        extracted = _extracted("|".join(map(re.escape, texts)), _bare(reply), -1)
        extracted = texts.get(extracted, extracted)
    if extracted == _NO_ANSWER:
        extracted = _extracted(rf":[\s]*([{letters}])", reply, -1)
    return _same_letter(extracted, accepted, question)


def mmlu_pro(reply: str, accepted: Sequence[str], question: str) -> bool:
    """Return True if the first "answer is (B)" of the reply is right, as MMLU-Pro's custom-extract has it."""
    return _same_letter(_extracted(r"answer is \(?([ABCDEFGHIJ])\)?", reply, 0), accepted, question)


def _bare(text: str) -> str:
    return text.strip().lower().translate(_PUNCTUATION)


def _same_letter(extracted: str, accepted: Sequence[str], question: str) -> bool:
    """Return True for an accepted letter; the letter of an accepted option's text is accepted too."""
    asked = Question.of(plain(question))
    keys = [*accepted, *asked.counterparts([plain(key) for key in accepted])]
    return any(_bare(extracted) == _bare(key) for key in keys)


GRADERS: Mapping[str, Callable[[str, Sequence[str], str], bool]] = {
    "gsm8k-strict": gsm8k_strict,
    "gsm8k-flexible": gsm8k_flexible,
    "math": math_dollars,
    "math-boxed": math_boxed,
    "choice-strict": choice_strict,
    "choice-flexible": choice_flexible,
    "mmlu-pro": mmlu_pro,
}
"""Name in the configuration (`evaluate.grader`) -> the function that grades one reply."""
