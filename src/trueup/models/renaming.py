"""A change of names that explains why the weights in a model's files are not called as its class calls them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

_WRAPPERS = {
    "_orig_mod": "torch.compile",
    "module": "DistributedDataParallel",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning Fabric",
    "base_layer": "an adapter of PEFT that was not merged",
    "base_model": "an adapter of PEFT that was not merged",
}


class Renaming(NamedTuple):
    """A change of names that turns those in the files into the class's: each match of a pattern is replaced.

    It holds no character that a shell replaces inside of double quotes, such as `!`.
    """

    pattern: str
    replacement: str
    text: str
    """The difference in words, for a message."""

    def apply(self, name: str) -> str:
        """Return the class's name of the weight that the files call `name`."""
        return re.sub(self.pattern, self.replacement, name)

    def call(self, variable: str) -> str:
        """Return Python code that renames what the variable holds."""
        return f"re.sub(r'{self.pattern}', r'{self.replacement}', {variable})"


def renaming_of(unexpected: Collection[str], missing: Collection[str], expected: Collection[str]) -> Renaming | None:
    """Return the renaming that explains every difference between the names in the files and the class's, if any.

    Such are the prefix of a wrapper around the model that was saved (`_orig_mod.` of torch.compile), and another
    prefix (`transformer.` for `model.`). The arguments are names that the class does not know, those that it lacks, and
    all of its names.
    """
    if not (unexpected and missing):
        return None
    names, lacking = set(expected), set(missing)
    for renaming in _renamings(unexpected, lacking, names):
        renamed = {renaming.apply(name) for name in unexpected}
        if len(renamed) == len(unexpected) and renamed <= names and renamed >= lacking:
            return renaming
    return None


def _renamings(unexpected: Collection[str], missing: set[str], expected: set[str]) -> Iterator[Renaming]:
    known = {part for name in expected for part in name.split(".")}
    if extra := sorted({part for name in unexpected for part in name.split(".")} - known):
        text = ", ".join(f"{part}." for part in extra)
        pattern = rf"(^|\.)(?:(?:{'|'.join(map(re.escape, extra))})\.)+"
        yield Renaming(pattern, r"\1", f"the names hold {text}{_origin(text)}")
    first = min(unexpected)
    prefixes = {first.removesuffix(name) for name in missing if first.endswith(f".{name}")}
    for prefix in sorted(prefixes, key=len):
        yield Renaming(rf"(^){re.escape(prefix)}", r"\1", f"the names hold {prefix}{_origin(prefix)}")
    heads = {pair for name in missing if (pair := _heads(first, name)) is not None}
    for ours, theirs in sorted(heads, key=lambda pair: len(pair[0]) + len(pair[1])):
        text = f"begin with {ours} where the model's begin with {theirs}" if ours else f"lack {theirs} before them"
        yield Renaming(rf"^{re.escape(ours)}", theirs, f"the names {text}")


def _heads(first: str, second: str) -> tuple[str, str] | None:
    """Return what two names begin with before their longest common end of whole parts; None if they have none."""
    ours, theirs = first.split("."), second.split(".")
    pairs = zip(reversed(ours), reversed(theirs), strict=False)
    common = next((index for index, (part, other) in enumerate(pairs) if part != other), min(len(ours), len(theirs)))
    if not common:
        return None
    return "".join(f"{part}." for part in ours[:-common]), "".join(f"{part}." for part in theirs[:-common])


def _origin(removed: str) -> str:
    """Return the text (left by torch.compile) for a removed prefix such as `_orig_mod.`, or ""."""
    origins = sorted({_WRAPPERS[part] for part in removed.replace(", ", "").split(".") if part in _WRAPPERS})
    return f" (left by {', '.join(origins)})" if origins else ""
