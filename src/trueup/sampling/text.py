"""Sampled token ids as the answer's text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trueup.sampling import Sample

if TYPE_CHECKING:
    from trueup.models.network import Network


def answer_text(network: Network, one: Sample) -> str:
    """A sample as text, without its end token."""
    return network.renderer.answer(one.ids[:-1] if one.finished else one.ids)
