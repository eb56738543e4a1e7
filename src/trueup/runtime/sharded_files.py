"""Sharded tensors on disk (torch.distributed.checkpoint): every process writes its part, any number of processes reads.

The parts are safetensors files, each with a header that says which piece of which tensor it holds; torch's usual
format would be pickle.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from trueup.errors import CheckpointError
from trueup.runtime.processes import Runtime, is_lost_peer


def save_sharded(folder: Path, tensors: Mapping[str, Tensor], runtime: Runtime) -> None:
    """Write named tensors into an existing folder, each rank its part. Every rank has to call, with the same names.

    Raises:
        OSError: writing failed on any rank.
        CheckpointError: the tensors could not be written for another reason.
    """
    with _explain_errors(folder):
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        save(dict(tensors), storage_writer=writer, no_dist=runtime.world == 1)


def load_sharded(folder: Path, tensors: Mapping[str, Tensor], runtime: Runtime) -> None:
    """Fill the named tensors, whole or sharded over this run's processes, from the files that `save_sharded` wrote.

    The run that wrote them may have had another number of processes.

    Raises:
        CheckpointError: a tensor is missing or has another shape.
    """
    with _explain_errors(folder):
        load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=runtime.world == 1)


@contextmanager
def _explain_errors(folder: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # "torch.distributed is disabled": intended with a single process
            yield
    except CheckpointException as error:
        failures = [failure[0] for failure in error.failures.values()]
        disk_error = next((failure for failure in failures if isinstance(failure, OSError)), None)
        raise disk_error or _checkpoint_error(folder, failures[0]) from error
    except (KeyError, RuntimeError, ValueError) as error:
        if is_lost_peer(error):
            raise
        raise _checkpoint_error(folder, error) from error


def _checkpoint_error(folder: Path, error: BaseException) -> CheckpointError:
    return CheckpointError(f"{folder}: {' '.join(str(error).split())[:300]}")
