"""Sharded tensors on disk (torch.distributed.checkpoint): every process writes its part, any number of them reads.

The parts are safetensors files whose headers say which piece of which tensor they hold; torch's usual format would be
pickle.
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


def save_sharded(folder: Path, tensors: Mapping[str, Tensor], where: Runtime) -> None:
    """Write tensors into a folder that is there; every rank has to call, with the same names.

    Raises:
        OSError: the disk refused, on any rank.
        CheckpointError: they could not be written for another reason.
    """
    with _in_words(folder):
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        save(dict(tensors), storage_writer=writer, no_dist=where.world == 1)


def load_sharded(folder: Path, tensors: Mapping[str, Tensor], where: Runtime) -> None:
    """Fill tensors, whole or sharded over this run's processes, from what any number of processes wrote.

    Raises:
        CheckpointError: a tensor is missing or has another shape.
    """
    with _in_words(folder):
        load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=where.world == 1)


@contextmanager
def _in_words(folder: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "torch.distributed is disabled": one process, as meant
            yield
    except CheckpointException as error:
        met = [failure[0] for failure in error.failures.values()]
        raise next((one for one in met if isinstance(one, OSError)), None) or CheckpointError(
            f"{folder}: {' '.join(str(met[0]).split())[:300]}"
        ) from error
    except (KeyError, RuntimeError, ValueError) as error:
        if is_lost_peer(error):
            raise
        raise CheckpointError(f"{folder}: {' '.join(str(error).split())[:300]}") from error
