"""Trained roles as standard folders that other tools open, and the proof that they hold what was trained.

writing.py      model/ and adapter/ at a stage's end; `trueup export`
merging.py      LoRA folded into the weights, and how much of it the rounding keeps
proof.py        what the trained network computes, recorded; a fresh process's answers compared with it
proof_fresh.py  that process: plain transformers and peft, nothing of trueup
proof_files.py  what can be told from the written bytes
hub.py          upload, after the proof
"""

from trueup.export.merging import merged_state
from trueup.export.writing import export_adapter, export_policy, export_reward, run

__all__ = ["export_adapter", "export_policy", "export_reward", "merged_state", "run"]
