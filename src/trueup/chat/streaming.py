"""Show an answer as text while its tokens are sampled; text that could still change or be cut is held back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from trueup.system.text import clean

UNFINISHED = "\ufffd"  # what decoders write for bytes that are no character yet


def cut(text: str, stops: Collection[str]) -> tuple[str, bool]:
    """Return the text before the stop text that is completed first, and True if there was one.

    Of two stop texts that end at the same place the longer one counts. So the cut does not depend on where the text is
    divided into tokens.
    """
    ends = [(start + len(stop), start) for stop in stops if (start := text.find(stop)) >= 0]
    return (text[: min(ends)[1]], True) if ends else (text, False)


class AnswerStream:
    r"""Shows an answer while it is sampled. The pieces shown add up to the answer, cleaned of control characters.

    Held back are incomplete characters, spaces and new lines at the end (the template may own them), and an end that
    could be the beginning of a stop text: of `stops=["\nUser:"]` not even the new line is shown.

    Args:
        decode: turns token ids into text, such as `Renderer.growing`.
        stops: texts that end the answer and are no part of it.
        show: called with each new piece of text.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stops: Collection[str], show: Callable[[str], object]
    ) -> None:
        """Begin an answer without tokens."""
        self.ids: list[int] = []
        self.decode = decode
        self.stops = tuple(stop for stop in stops if stop)
        self._show = show
        self._shown = ""

    def add(self, token: int) -> bool:
        """Take one more sampled token. Returns True if the answer may go on, False once a stop text is complete."""
        self.ids.append(token)
        text, stopped = cut(self.decode(self.ids).rstrip(UNFINISHED), self.stops)
        if not stopped:
            self._emit(self._settled(text))
        return not stopped

    def end(self) -> str:
        """Show the text that was held back. Returns the whole answer as the model wrote it, with control characters."""
        text, _ = cut(self.decode(self.ids), self.stops)
        if not text.startswith(self._shown):  # a decoder changed its mind about earlier bytes: show it all again
            self._show("\n")
            self._shown = ""
        self._emit(text)
        return text

    def _settled(self, text: str) -> str:
        """Return the beginning of `text` that no further token can change or cut, and that may be shown."""
        text = text.rstrip()
        for start in range(max(0, len(text) - max(map(len, self.stops), default=0) + 1), len(text)):
            if any(stop.startswith(text[start:]) for stop in self.stops):
                return text[:start]
        return text

    def _emit(self, text: str) -> None:
        if len(text) > len(self._shown) and text.startswith(self._shown):
            piece, self._shown = text[len(self._shown) :], text
            self._show(clean(piece))
