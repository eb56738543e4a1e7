"""Run the command line as `python -m trueup`, and as `torchrun -m trueup` for several processes."""

from __future__ import annotations

import sys

from trueup.system.interrupt import quit_on_ctrl_c


def main() -> int:
    """Run the command line. Returns the exit code."""
    with quit_on_ctrl_c():
        from trueup.cli.main import main as command

        return command()


if __name__ == "__main__":
    sys.exit(main())
