"""The launch scripts, run: torchrun.sh as it is, slurm.sbatch with stand-ins for SLURM's own commands."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tiny_data import free_port, metrics, stage
from trueup.config import to_yaml

SCRIPTS = Path(__file__).parents[2] / "scripts" / "launch"


def launcher(folder: Path) -> str:
    """The words that start torchrun; this Python's own path may hold a space, and the script takes words."""
    path = folder / "python"
    path.write_text(f'#!/usr/bin/env bash\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return f"{path} -m torch.distributed.run"


def command(config: Any) -> list[str]:
    path = Path(config.output).with_suffix(".yaml")
    path.write_text(to_yaml(config), encoding="utf-8")
    return [config.method, str(path)]


@pytest.mark.parametrize("name", ["torchrun.sh", "slurm.sbatch"])
def test_the_scripts_are_bash_and_say_how_they_are_used(name: str) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    assert subprocess.run(["bash", "-n", str(SCRIPTS / name)], check=False).returncode == 0
    said = subprocess.run(["bash", str(SCRIPTS / name)], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (2, "")
    assert f"scripts/launch/{name}" in said.stderr


@pytest.mark.parametrize(("visible", "processes"), [(None, "1"), ("0,1,5", "3")])
def test_the_script_counts_the_gpus(visible: str | None, processes: str, tmp_path: Path) -> None:
    """Also where there is no nvidia-smi."""
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    for name in ("bash", "wc", "tr", "sed", "echo"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    environment = {"PATH": str(tmp_path), "TORCHRUN": "echo"} | ({"CUDA_VISIBLE_DEVICES": visible} if visible else {})
    line = ["bash", str(SCRIPTS / "torchrun.sh"), "sft", "sft.yaml"]
    said = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert said.stdout == f"--standalone --nproc-per-node {processes} -m trueup sft sft.yaml\n", said.stderr


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
def test_torchrun_script(nodes: int, tmp_path: Path) -> None:
    config = stage("sft", tmp_path, strategy="fsdp")
    several = {"NODES": str(nodes), "HEAD": f"127.0.0.1:{free_port()}"} if nodes > 1 else {}
    environment = os.environ | {"TORCHRUN": launcher(tmp_path), "PROCESSES": str(2 // nodes)} | several
    line = ["bash", str(SCRIPTS / "torchrun.sh"), *command(config)]
    started = [
        subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(nodes)
    ]
    try:
        said = [one.communicate(timeout=120)[0] for one in started]
    finally:
        for one in started:
            one.kill()
    assert [one.returncode for one in started] == [0] * nodes, said
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


SKIP = "while [[ $1 == --* ]]; do shift; done\n"
SRUN = "#!/usr/bin/env bash\n" + SKIP + '[ "$1" = python ] && shift\necho $$ > "$HERE/step"\nexec "$PYTHON" "$@"\n'
SCANCEL = '#!/usr/bin/env bash\necho "$@" > "$HERE/cancelled"\nkill -TERM "$(cat "$HERE/step")"\n'
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then echo 127.0.0.1; else echo "$2" > "$HERE/requeued"; fi
"""


@pytest.mark.slow
def test_slurm_script_stops_before_its_time_is_up_and_queues_again(tmp_path: Path) -> None:
    config = stage("sft", tmp_path, strategy="fsdp", optim={"steps": 5000})
    for name, source in (("srun", SRUN), ("scancel", SCANCEL), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(source, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "here", "PROCESSES": "2"}
    here = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HERE": str(tmp_path), "PYTHON": sys.executable}
    environment = os.environ | job | here | {"PORT": str(free_port())}
    started = subprocess.Popen(
        ["bash", str(SCRIPTS / "slurm.sbatch"), *command(config)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 100
        while time.monotonic() < until and started.poll() is None:
            if (tmp_path / "run" / "metrics.jsonl").exists() and len(metrics(config)) > 3:
                break
            time.sleep(0.1)
        started.send_signal(signal.SIGUSR1)
        said = started.communicate(timeout=100)[0]
    finally:
        started.kill()
    assert "of 5000, saved." in " ".join(said.split()), said
    assert (tmp_path / "cancelled").read_text() == "--signal=TERM 7.0\n"
    assert (tmp_path / "requeued").read_text() == "7\n"
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
