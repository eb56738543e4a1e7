"""The corpus lies beside its tests; under --import-mode=importlib their folder is not on the path by itself."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
