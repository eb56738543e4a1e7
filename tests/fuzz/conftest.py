"""The fuzz targets share the modules beside them; under --import-mode=importlib their folder is not on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
