"""Which modules a command of an environment can import, asked of its own interpreter from inside."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ftagent.core.protocols import Environment
from ftagent.core.types import Stage

TIME_LIMIT = 60.0
# Names of files and folders alone: nothing is imported. A folder without __init__.py may be a namespace package.
SCRIPT = """
import importlib.machinery, os, sys
names = {*sys.stdlib_module_names, *sys.builtin_module_names}
suffixes = tuple(importlib.machinery.all_suffixes())
for folder in sys.path:
    try:
        entries = list(os.scandir(folder or "."))
    except OSError:
        continue
    names |= {e.name for e in entries if e.name.isidentifier() and e.is_dir()}
    names |= {e.name.split(".")[0] for e in entries if e.name.endswith(suffixes)}
for finder in sys.meta_path:
    owner = sys.modules.get(getattr(finder, "__module__", ""))
    names |= {*getattr(owner, "MAPPING", ()), *getattr(finder, "_redirections", ())}
print("\\n".join(sorted(n for n in names if n.isidentifier())))
"""


async def importable(environment: Environment) -> frozenset[str]:
    """Top-level names; empty when the interpreter does not tell. Raises EnvironmentUnavailable."""
    with tempfile.TemporaryDirectory(prefix="ftagent-") as folder:
        workspace = Path(folder) / "workspace"
        workspace.mkdir()
        lines: list[str] = []
        stage = Stage("modules", "debug", ("python", "-c", SCRIPT), time_limit=TIME_LIMIT)
        done = await environment.execute(stage, workspace, lines.append, Path(folder) / "modules.log")
    return frozenset(lines) if done.ok else frozenset()
