"""Count the errors of the grader of written answers on the labelled answers; `--write` stores them for the report.

    python scripts/answer_error.py [--write] [--errors] [FILE.jsonl]

Without a file it counts the package's labelled answers (`evaluation/data/answers.jsonl`). A file has one JSON object on
each line: question, accepted (a list), reply, right (true or false), and maybe kind and split. `--errors` prints the
cases that are graded otherwise than their labels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trueup.evaluation.answers import error
from trueup.evaluation.grading import is_right
from trueup.stats.intervals import rate


def main() -> None:
    """Count, print and, if asked to, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--write", action="store_true", help="store the counts of the package's labelled answers")
    parser.add_argument("--errors", action="store_true", help="print the cases that are graded otherwise")
    arguments = parser.parse_args()
    if arguments.write and arguments.file:
        parser.error("--write stores the counts of the package's labelled answers: leave the file out")
    rows = error.load_answers() if arguments.file is None else _read(arguments.file)
    verdicts = [is_right(row.reply, row.accepted, row.question) for row in rows]
    counts = error.count(rows, verdicts)
    for split, part in counts.items():
        rejected, accepted = rate(part["rejected"], part["right"]), rate(part["accepted"], part["wrong"])
        print(f"{split}: {error.GraderError(split, rejected, accepted)}")
    if arguments.errors:
        for row, verdict in zip(rows, verdicts, strict=True):
            if verdict != row.right:
                graded = "right" if verdict else "wrong"
                print(f"graded {graded}: [{row.kind}] {row.question!r} {row.accepted} {row.reply!r}")
    if arguments.write:
        place = Path(error.__file__).parent / "error.json"
        place.write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")


def _read(file: Path) -> list[error.LabelledAnswer]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [error.LabelledAnswer(**{"kind": "", "split": file.stem, **row}) for row in rows]


if __name__ == "__main__":
    main()
