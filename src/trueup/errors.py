"""The errors that trueup raises on purpose: subclasses of TrueupError that are also subclasses of a standard error.

    TrueupError
    ├── ConfigError       (ValueError)         a key, value or override is wrong              exit 2
    ├── DataError         (ValueError)         a file or row cannot be used                   exit 3
    ├── ModelError        (ValueError)         a model folder, head or tokenizer is unusable  exit 4
    ├── CheckpointError   (RuntimeError)       a run folder or checkpoint is unusable         exit 5
    ├── TrainingError     (RuntimeError)       training cannot go on (NaN, KL at step 0, …)   exit 6
    ├── MissingExtraError (ImportError)        an optional dependency is not installed        exit 7
    ├── LostPeerError     (RuntimeError)       another process of the run has ended           exit 10
    └── Interrupted       (KeyboardInterrupt)  Ctrl-C or SIGTERM, progress was saved          exit 130

A message names the place (file, 1-based line, key), the value, and the fix. The command line prints it without a
traceback and exits with `exit_code`.
"""

from __future__ import annotations


class TrueupError(Exception):
    """Base class of the errors that trueup raises on purpose. The command line exits with `exit_code`."""

    exit_code = 1


class ConfigError(TrueupError, ValueError):
    """A configuration key, value or override is wrong."""

    exit_code = 2


class DataError(TrueupError, ValueError):
    """A data file or one of its rows cannot be used.

    Attributes:
        kind: the kind of row, by which the setting `skip` can leave such rows out; "" where it cannot.
    """

    exit_code = 3
    kind: str = ""


class ModelError(TrueupError, ValueError):
    """A model folder, head or tokenizer cannot be used."""

    exit_code = 4


class CheckpointError(TrueupError, RuntimeError):
    """A run folder or a checkpoint cannot be used."""

    exit_code = 5


class TrainingError(TrueupError, RuntimeError):
    """Training cannot go on, e.g. a loss is not finite, or PPO's policy differs from its reference model at step 0."""

    exit_code = 6


class MissingExtraError(TrueupError, ImportError):
    """An optional dependency is not installed."""

    exit_code = 7


class LostPeerError(TrueupError, RuntimeError):
    """Another process of a run with several processes has ended, so this one cannot go on."""

    exit_code = 10


class Interrupted(TrueupError, KeyboardInterrupt):
    """A run was stopped by Ctrl-C or SIGTERM, after its progress was saved."""

    exit_code = 130


def is_panic(error: BaseException) -> bool:
    """Return True for a panic of a library written in Rust (tokenizers, safetensors), which is no `Exception`."""
    return type(error).__name__ == "PanicException"
