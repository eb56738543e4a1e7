"""Settings of the C library's memory allocator: memory that a step frees is kept for the next step.

By default glibc requests every large tensor from the system and returns it when it is freed, and the system zeroes
every page again in each step: a tenth of the training time on a CPU.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt (malloc.h)
_LARGE = 2**30
_LARGE_OLD_GLIBC = 2**25  # largest value that glibc before 2.35 accepts
_USER_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def _c_library() -> Any:
    """Return the C library if it is glibc on Linux, with the allocator calls used in this module, else None."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory for later allocations; return True if that succeeded.

    Nothing changes without glibc, or where environment variables configure its allocator.
    """
    library = _c_library()
    if library is None or any(name in os.environ for name in _USER_SETTINGS):
        return False
    # Setting either parameter stops glibc from adapting both, so never set the second without the first.
    accepted = any(library.mallopt(_MMAP_THRESHOLD, size) for size in (_LARGE, _LARGE_OLD_GLIBC))
    return accepted and bool(library.mallopt(_TRIM_THRESHOLD, _LARGE))


def give_back_memory() -> None:
    """Return the freed memory that was kept to the system, when a stage ends and another begins."""
    if library := _c_library():
        library.malloc_trim(0)
