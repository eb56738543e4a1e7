"""Device, dtype and processes of a run. No other package imports `torch.distributed`.

A single process is the ordinary case and needs no launcher. Under `torchrun -m trueup …` each process takes its share
of every optimizer step's examples. With the strategy "ddp" each process holds the whole model, and trueup itself sums
the gradients once a step: ranks may run different numbers of micro-batches and leave adapters unused without a
deadlock. With "fsdp" each process holds a part of every weight (`sharding.py`).
"""

from trueup.runtime.devices import mixed_seed, peak_memory_bytes, reset_peak_memory, seed_everything
from trueup.runtime.processes import Runtime, first_then_all, init, lost_peer_message, shutdown
from trueup.runtime.sharded_files import load_sharded, save_sharded
from trueup.runtime.sharding import copy_into, full_tensor, is_sharded, local_tensor, run_unsharded, shard

__all__ = [
    "Runtime",
    "copy_into",
    "first_then_all",
    "full_tensor",
    "init",
    "is_sharded",
    "load_sharded",
    "local_tensor",
    "lost_peer_message",
    "mixed_seed",
    "peak_memory_bytes",
    "reset_peak_memory",
    "run_unsharded",
    "save_sharded",
    "seed_everything",
    "shard",
    "shutdown",
]
