"""The C library's allocator: memory that a step frees is kept for the next step.

By default glibc takes every large tensor fresh from the system and gives it back when it is freed, and the system fills
every page with zeros, each step anew: a tenth of a CPU's training time.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's names for them (malloc.h)
_LARGE = 2**30
_LARGEST_ONCE = 2**25  # what glibc before 2.35 takes at most
_OWN_CHOICE = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def _c_library() -> Any:
    """The C library where it is one with these calls, else None."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def keep_freed_memory() -> bool:
    """Keep what is freed for what is allocated next. Returns whether that is so now.

    Not where there is no glibc, or where the environment says how its allocator is to behave.
    """
    library = _c_library()
    if library is None or any(name in os.environ for name in _OWN_CHOICE):
        return False
    # Setting either turns off glibc's own adapting of both, so never the second without the first.
    taken = any(library.mallopt(_MMAP_THRESHOLD, size) for size in (_LARGE, _LARGEST_ONCE))
    return taken and bool(library.mallopt(_TRIM_THRESHOLD, _LARGE))


def give_back_memory() -> None:
    """Give the system back what is freed, once: when a stage ends and another begins."""
    if library := _c_library():
        library.malloc_trim(0)
