"""Export trained roles as standard folders that other tools open, and prove that they compute what was trained.

writing.py      writes model/ and adapter/ at a stage's end; `trueup export`
merging.py      merges LoRA into the weights, and measures the share of the change that rounding keeps
copying.py      copies a model's folder without links that lead out of it
proof.py        records the trained network's outputs, and compares a fresh process's outputs with them
proof_fresh.py  program of that process: plain transformers and peft, without trueup
proof_files.py  checks of the written files
hub.py          uploads a folder, after the proof
"""

from trueup.export.merging import merged_state
from trueup.export.writing import export_adapter, export_policy, export_reward, run

__all__ = ["export_adapter", "export_policy", "export_reward", "merged_state", "run"]
