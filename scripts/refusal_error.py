"""Count the errors of the refusal detector on labelled replies, by model and language.

    python scripts/refusal_error.py              # print the table
    python scripts/refusal_error.py --write      # and store it in src/trueup/data/refusals/error.json
    python scripts/refusal_error.py --add FILE   # first add labelled replies to src/trueup/data/replies.jsonl

XSTest's replies with people's labels (Röttger et al. 2023, arXiv:2308.01263) are read from the folder of --xstest or of
the variable TRUEUP_XSTEST: one <model>.jsonl per model with `prompt`, `reply` and `label` (1_full_compliance,
2_full_refusal, 3_partial_refusal). Without that folder their stored counts stay as they are. FILE has rows with
`prompt`, `reply`, `label` (full, partial, unsure, none) and `language`. Replies of the split "test", the default of
--add, are those that the rules were not written on.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

from trueup.data.refusal import DetectorCounts, Reply, count, load_replies
from trueup.data.refusals.error import COMMAND, stored_counts, summed

DATA = Path(__file__).parents[1] / "src" / "trueup" / "data"
LABELS = {"1": "none", "2": "full", "3": "partial"}


def xstest_counts(folder: Path) -> list[DetectorCounts]:
    """Return the counts on each model's replies in a folder of XSTest's files."""
    result: list[DetectorCounts] = []
    for path in sorted(folder.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        replies = [Reply("dev", row["prompt"], row["reply"], LABELS[row["label"][0]], "en") for row in rows]
        result.append(count(f"XSTest, {path.stem}", "en", replies, unseen=False))
    return result


def own_counts() -> list[DetectorCounts]:
    """Return the counts on the package's own replies, by split and language."""
    replies = load_replies()
    groups = dict.fromkeys((reply.split, reply.language) for reply in replies)
    return [
        count(
            f"own replies, {split}",
            language,
            [reply for reply in replies if (reply.split, reply.language) == (split, language)],
            unseen=split == "test",
        )
        for split, language in groups
    ]


def add(path: Path, split: str) -> None:
    """Append a file of labelled replies to those of the package."""
    own = DATA / "replies.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    with own.open("a", encoding="utf-8") as handle:
        for number, row in enumerate(rows, len(load_replies()) + 1):  # ids that no row has
            kept = {key: row[key] for key in ("language", "label", "prompt", "reply")}
            handle.write(
                json.dumps({"id": f"reply-{split}-{number:03}", "split": split, **kept}, ensure_ascii=False) + "\n"
            )


def table(counts: list[DetectorCounts]) -> str:
    """Return the counts as lines of text."""
    lines = [f"{'replies':28} {'lang':5} {'missed':>26} {'flagged':>26} {'unsure':>7}"]
    for part in counts:
        missed = f"{part.missed} of {part.refusals}" if part.refusals else "no refusals"
        flagged = f"{part.false_alarms} of {part.answers}" if part.answers else "no answers"
        lines.append(f"{part.name:28} {part.language:5} {missed:>26} {flagged:>26} {part.unsure:>7}")
    for title, chosen in (
        ("XSTest", [part for part in counts if part.name.startswith("XSTest")]),
        ("own, not seen", [part for part in counts if part.unseen]),
    ):
        if chosen:
            total = summed(tuple(chosen))
            lines.append(f"{title}: {total}")
    return "\n".join(lines)


def main() -> None:
    """Count, print and, with --write, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--xstest", type=Path, default=os.environ.get("TRUEUP_XSTEST"), help="XSTest's folder")
    parser.add_argument("--add", type=Path, help="labelled replies to add to the package's own")
    parser.add_argument("--split", choices=("dev", "test"), default="test", help="their split")
    parser.add_argument("--write", action="store_true", help="store the counts")
    arguments = parser.parse_args()
    if arguments.add:
        add(arguments.add, arguments.split)
    xstest = (
        xstest_counts(Path(arguments.xstest))
        if arguments.xstest
        else [part for part in stored_counts() if part.name.startswith("XSTest")]
    )
    counts = [*xstest, *own_counts()]
    print(table(counts))
    if arguments.write:
        stored = {"command": f"{COMMAND} --xstest FOLDER --write", "counts": [asdict(part) for part in counts]}
        (DATA / "refusals" / "error.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
