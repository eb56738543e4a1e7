"""The store of rankings: one SQLite file of prompts, pairs, raters and events."""

from __future__ import annotations
