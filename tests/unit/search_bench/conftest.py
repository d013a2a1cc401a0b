"""The benchmark of search strategies is a folder of scripts: its modules are found beside each other."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bench" / "search"))
