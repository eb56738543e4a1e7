"""Decode sampled token ids into an answer's text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trueup.sampling import Sample

if TYPE_CHECKING:
    from trueup.models.network import Network


def answer_text(network: Network, sample: Sample) -> str:
    """Return the text of a sampled answer, without its end token."""
    return network.renderer.answer(sample.ids[:-1] if sample.finished else sample.ids)
