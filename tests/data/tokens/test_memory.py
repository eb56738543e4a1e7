"""Memory does not grow with the rows: neither when they are tokenized and checked nor when they are read back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from data.tokens import making

SOURCE = """
import sys
sys.path.insert(0, {tests!r})
from data.tokens import making
from trueup.config import STAGES
from trueup.data.tokens.prepare import prepare
config = STAGES["dpo"].model_validate(
    {{"model": "m", "output": "o", "data": {{"path": {path!r}, "holdout": 0.1}}, "threads": 1}}
)
made = prepare(config, making.renderer(), workers=1)
seen = sum(one.total for at, one in enumerate(made.train) if at % 5 == 0)
# Not ru_maxrss: a process begins with that of the one it was started by.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(len(made.train) + len(made.held_out), status["VmHWM"].split()[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the highest memory is read from /proc")
def test_50_000_rows_need_hardly_more_than_5_000(tmp_path: Path) -> None:
    """Tokens, texts and records of 50,000 rows are 40 MB on disk; what is allowed is 10 MB of memory.

    Up to 5,000 rows the memory of the process still grows by 15 MB, which is the tokenizer's own cache of words.
    """
    used: list[int] = []
    for count in (5_000, 50_000):
        path = making.write(tmp_path / f"{count}.jsonl", making.rankings(count))
        source = SOURCE.format(tests=str(Path(__file__).parents[2]), path=str(path))
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
        rows, kilobytes = map(int, done.stdout.split())
        assert rows == count
        used.append(kilobytes)
    stored = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.*"))
    assert stored > 40e6
    assert used[1] - used[0] < 10_000, used
