"""`python -m trueup`, and `torchrun -m trueup` for several processes."""

from __future__ import annotations

import sys

from trueup.cli import main

sys.exit(main())
