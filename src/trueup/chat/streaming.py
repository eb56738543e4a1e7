"""Sampled tokens to text on a screen while they are sampled: nothing is shown that could still change or be cut."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from trueup.system.text import clean

UNFINISHED = "\ufffd"  # what decoders write for bytes that are no character yet


def cut(text: str, stops: Collection[str]) -> tuple[str, bool]:
    """`text` up to the stop text that is complete first. -> the text before it, and whether there was one.

    Of two that end at the same place the longer one counts. So the cut is where it would be had the text come
    character by character, whatever the tokens were.
    """
    ends = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(ends)[1]], True) if ends else (text, False)


class Stream:
    r"""Shows an answer as it grows. What was shown is in the end exactly `clean` of the answer.

    Held back are half characters, spaces and new lines at the end (the template may own them), and an end that could
    be the beginning of a stop text: of `stops=["\nUser:"]` not even the new line is seen.

    Args:
        decode: token ids to text, such as `Renderer.decode`.
        stops: texts that end the answer and are no part of it.
        show: gets each new piece, cleaned of control characters.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stops: Collection[str], show: Callable[[str], object]
    ) -> None:
        """Begin an answer."""
        self.ids: list[int] = []
        self._decode = decode
        self.stops = tuple(stop for stop in stops if stop)
        self._show = show
        self._shown = ""

    def add(self, token: int) -> bool:
        """Take one more token. -> whether the answer may go on; False once a stop text is complete."""
        self.ids.append(token)
        text, stopped = cut(self._decode(self.ids).rstrip(UNFINISHED), self.stops)
        if not stopped:
            self._emit(self._settled(text))
        return not stopped

    def end(self) -> str:
        """Show what was held back. -> the answer, as the model wrote it (not cleaned)."""
        text, _ = cut(self._decode(self.ids), self.stops)
        if not text.startswith(self._shown):  # a decoder changed its mind about earlier bytes: show it all again
            self._show("\n")
            self._shown = ""
        self._emit(text)
        return text

    def _settled(self, text: str) -> str:
        """The part of `text` that no further token can change or cut."""
        text = text.rstrip()
        for start in range(max(0, len(text) - max(map(len, self.stops), default=0) + 1), len(text)):
            if any(stop.startswith(text[start:]) for stop in self.stops):
                return text[:start]
        return text

    def _emit(self, text: str) -> None:
        if len(text) > len(self._shown) and text.startswith(self._shown):
            piece, self._shown = text[len(self._shown) :], text
            self._show(clean(piece))
