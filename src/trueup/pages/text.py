"""Text from data, made safe to show: control characters are written out, and lines are joined where one is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel

from trueup.system.text import clean

Model = TypeVar("Model", bound=BaseModel)


def one_line(text: str, limit: int = 0) -> str:
    """Return text without line breaks; with a `limit` it is cut to so many characters, the last an ellipsis."""
    flat = " ".join(text.split())
    return flat if not limit or len(flat) <= limit else flat[: limit - 1].rstrip() + "…"


def clean_line(text: str) -> str:
    """Return text in one line, with every control character written out."""
    return clean(one_line(text), one_line=True)


def cleaned(model: Model, clean_text: Callable[[str], str] = clean) -> Model:
    """Return a copy of a pydantic model in which every text, dictionary keys included, went through `clean_text`."""

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return clean_text(value)
        if isinstance(value, dict):
            return {walk(key): walk(item) for key, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list | tuple) else value

    return type(model).model_validate(walk(model.model_dump()))
