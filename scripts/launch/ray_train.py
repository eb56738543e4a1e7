"""Start a trueup command on the workers of a Ray cluster (Ray Train).

    pip install 'trueup[ray]'
    python scripts/launch/ray_train.py --workers 16 sft sft.yaml strategy=fsdp
    python scripts/launch/ray_train.py --workers 2 --cpu sft sft.yaml device=cpu

Ray places the workers and restarts them after a failure (`--failures`); the run then resumes from its last checkpoint.
Each worker runs `python -m trueup …` in a separate process, which joins trueup's process group, not Ray's, handles
signals, and ends with an exit code. Paths must be absolute, on a disk that all nodes share.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from typing import Any

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer


class Meeting(TorchConfig):
    """Set the rendezvous address in all workers; trueup creates the process group."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The class that sets the address."""
        return _Meeting


class _Meeting(Backend):
    share_cuda_visible_devices = True  # each takes the GPU of its local rank, as under torchrun

    def on_start(self, worker_group: Any, backend_config: Any) -> None:  # noqa: ARG002 -- Ray's signature
        address, port = worker_group.execute_single(0, get_address_and_port)
        worker_group.execute(_set, {"MASTER_ADDR": address, "MASTER_PORT": str(port)})


def _set(variables: dict[str, str]) -> None:
    os.environ.update(variables)


def work(config: dict[str, Any]) -> None:
    """Run the command in a worker, as one process of the group."""
    here = ray.train.get_context()
    group = {
        "RANK": here.get_world_rank(),
        "WORLD_SIZE": here.get_world_size(),
        "LOCAL_RANK": here.get_local_rank(),
        "LOCAL_WORLD_SIZE": here.get_local_world_size(),
    }
    environment = os.environ | {name: str(value) for name, value in group.items()}
    done = subprocess.run([sys.executable, "-m", "trueup", *config["command"]], env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"trueup ended with exit code {done.returncode}; its output is above")


def main() -> None:
    """Parse, and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, required=True, help="processes in all, one a GPU")
    parser.add_argument("--cpu", action="store_true", help="without GPUs")
    parser.add_argument("--failures", type=int, default=3, help="how often all start again after a failure")
    parser.add_argument("--storage", help="Ray's own folder, shared by all nodes (default: Ray's)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="a trueup command, such as: sft sft.yaml")
    given = parser.parse_args()
    trainer = TorchTrainer(
        work,
        train_loop_config={"command": given.command},
        torch_config=Meeting(),
        scaling_config=ScalingConfig(num_workers=given.workers, use_gpu=not given.cpu),
        run_config=RunConfig(storage_path=given.storage, failure_config=FailureConfig(max_failures=given.failures)),
    )
    trainer.fit()


if __name__ == "__main__":
    main()
