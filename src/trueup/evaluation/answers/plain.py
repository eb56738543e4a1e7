r"""Plain text of a model's reply: without thoughts, further questions that it invents, LaTeX, Markdown and HTML.

Replies and accepted answers go through the same functions, so that both are compared in one notation:
`$\frac{3}{4}$`, `¾` and `3/4` are "3/4"; `\text{cm}^2`, `cm²` and `cm^2` are "cm^2".
"""

from __future__ import annotations

import re
import unicodedata

_CHARACTERS = str.maketrans(
    dict.fromkeys("\u2018\u2019\u02bc\u00b4", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d", '"')
    | dict.fromkeys("\u2010\u2011\u2212", "-")
    | dict.fromkeys("\u00a0\u2007\u2009\u202f", " ")
    | {"\u00ba": "\u00b0", "\u02da": "\u00b0", "\u2014": " \u2014 ", "\u200b": "", "\ufeff": "", "\u00ad": ""}
)
_SUPERSCRIPTS = "⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹"
_VULGAR = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"

# A chat model's end of turn, or a next question: text after it is no part of the answer.
_TURN = re.compile(r"<\|[^|>\n]{1,40}\|>|</s>|<(?:end_of_turn|eos)>|\[/?INST\]")
_NEXT_QUESTION = re.compile(
    r"\n[ \t]*[#*]{0,6}[ \t]*(?:question|q|user|human|problem|exercise|instruction|input|prompt)\b[ \t]?\d*[ \t*]*"
    r"(?::|\.|\n|$)",
    re.IGNORECASE,
)
_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)

# LaTeX commands that stand for a character, those whose argument alone is text, and those without a meaning here.
_SYMBOLS = {
    "times": "×", "cdot": "×", "div": "÷", "pm": "±", "pi": "π", "approx": "≈", "circ": "°", "degree": "°", "sim": "~",
    "infty": "∞", "ne": "≠", "neq": "≠", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "Rightarrow": "⇒",
    "implies": "⇒", "rightarrow": "→", "to": "→", "therefore": "⇒", "alpha": "α", "beta": "β", "theta": "θ",
    "lambda": "λ", "mu": "μ", "Delta": "Δ", "quad": " ", "qquad": " ", "ldots": "…", "dots": "…", "cup": "∪",
    "cap": "∩",
}  # fmt: skip
_TEXT_OF = (
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mathsf|operatorname|mbox|emph|ce|bf|rm|underline)\s*\{([^{}]*)\}"
)
_NUMERATOR = r"(\{[^{}]*\}|\d|[a-zA-Z])"
_FRACTION = re.compile(rf"(?P<whole>\d\s*)?\\[dtc]?frac\s*{_NUMERATOR}\s*{_NUMERATOR}")
_SIMPLE = re.compile(r"\\?\w+(?:\.\d+)?")


def without_thoughts(reply: str) -> str:
    """Return a reply without its thoughts; all up to a closing `</think>` whose beginning stands in the prompt too."""
    text = _THOUGHT.sub(" ", reply)
    return re.split(r"</(?:think|thinking|reasoning)>", text, flags=re.IGNORECASE)[-1]


def own_answer(reply: str) -> str:
    """Return a reply up to the end of its turn, or up to the next question that a base model invents.

    The lm-evaluation-harness stops generation at "Question:", "Q:" and the end tokens for the same reason.
    """
    text = _TURN.split(reply.lstrip())[0]
    return _NEXT_QUESTION.split(text)[0] if text.strip() else text


def plain(text: str) -> str:
    """Return a text in plain notation: LaTeX, Markdown, HTML and variants of characters replaced."""
    text = text.translate(_CHARACTERS)
    text = re.sub(r"</?(?:b|i|em|strong|u|code|p|span|div|answer|final)>|</?su[bp]>", "", text, flags=re.IGNORECASE)
    text = re.sub(r"<br\s*/?>", "\n", text, flags=re.IGNORECASE)
    text = _without_latex(text)
    text = re.sub(rf"(?<=\d)(?=[{_VULGAR}])", " ", text)
    text = re.sub(f"[{_SUPERSCRIPTS}]+", lambda match: "^" + unicodedata.normalize("NFKC", match[0]), text)
    text = unicodedata.normalize("NFKC", text).replace("\u2044", "/").replace("\u2212", "-")
    return re.sub(r"[ \t]{2,}", " ", _without_markdown(text)).strip()


def _without_latex(text: str) -> str:
    if "\\" not in text and "$" not in text and "{" not in text:
        return text
    # Pandoc's rule for `$…$`: no space inside of the dollars, no digit after them. The others are money.
    text = re.sub(r"\$\$(.+?)\$\$", r"\1", text, flags=re.DOTALL)
    text = re.sub(r"(?<![\\$\w])\$(?=[^\s$])([^$\n]*?[^\s$\\])\$(?![\d$])", lambda match: _inline(match[1]), text)
    if "\\" not in text and "{" not in text:
        return text
    text = re.sub(r"\\[()\[\]]|\\begin\{\w+\*?\}|\\end\{\w+\*?\}|\\(?:left|right|displaystyle|bigl?|bigr?)\b", "", text)
    text = re.sub(r"(?<=\d)(?:\{,\}|,?\\[,!;: ])(?=\d{3})", ",", text)
    text = text.replace("\\\\", "\n") if "\\\\" in text and "&" in text else text.replace("\\\\", "\\")
    text = re.sub(r"\\[,!;: ]", " ", text)
    text = re.sub(r"\\([%$#&_{}])", r"\1", text)
    for _ in range(4):  # as deep as one command inside of another
        text = re.sub(_TEXT_OF, r" \1", text)
        text = _FRACTION.sub(_fraction, text)
        text = re.sub(r"\\sqrt\s*(?:\{([^{}]*)\}|(\w))", lambda match: _root(match[1] or match[2]), text)
    text = re.sub(r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?", "°", text)
    text = re.sub(r"\\(?:boxed|fbox)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\([A-Za-z]+)", lambda match: _SYMBOLS.get(match[1], match[0]), text)
    return re.sub(r"\^\{([^{}]*)\}", lambda match: f"^{match[1].strip()}", text)


def _inline(formula: str) -> str:
    return re.sub(r"(?<=\w)_\{?(\w+)\}?", r"\1", formula)


def _fraction(match: re.Match[str]) -> str:
    top, bottom = (_grouped(part.strip("{}").strip()) for part in (match[2], match[3]))
    return (f"{match['whole'].strip()} " if match["whole"] else "") + f"{top}/{bottom}"


def _grouped(part: str) -> str:
    return part if _SIMPLE.fullmatch(part) else f"({part})"


def _root(part: str) -> str:
    return f"√{part}" if re.fullmatch(r"\w+", part) else f"√({part})"


def _without_markdown(text: str) -> str:
    text = re.sub(r"```[\w+-]*\n?", "\n", text)
    text = re.sub(r"(?m)^[ \t]*(?:#{1,3}[ \t]+|>[ \t]+|[-*•][ \t]+)", "", text)
    if re.search(r"(?m)^[ \t]*2[.)]\s", text):  # a numbered list, not a number that begins a sentence
        text = re.sub(r"(?m)^[ \t]*\d{1,2}[.)][ \t]+", "", text)
    text = re.sub(r"(?mi)^[ \t]*\**step \d{1,2}\**[.:)]*\**[ \t]*", "", text)
    text = re.sub(r"\*\*(.+?)\*\*|__(.+?)__", lambda match: match[1] or match[2], text)
    text = re.sub(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])", r"\1", text)
    return re.sub(r"(?<!\w)_(?=[^\s_])([^_\n]+?)(?<=[^\s_])_(?!\w)", r"\1", text)
