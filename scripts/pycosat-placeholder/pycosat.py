"""Stands in for pycosat, which exists as C source only, on a machine without a C compiler.

reasoning-gym imports pycosat for one of its hundred tasks (`zebra_puzzles`); the others need it to exist only.
"""

from typing import NoReturn

_WHY = (
    "pycosat could not be built when ftagent was installed: install a C compiler, then run "
    "`pip install --force-reinstall --no-deps pycosat==0.6.6`"
)


def solve(*_: object, **__: object) -> NoReturn:
    """Raise NotImplementedError."""
    raise NotImplementedError(_WHY)


def itersolve(*_: object, **__: object) -> NoReturn:
    """Raise NotImplementedError."""
    raise NotImplementedError(_WHY)
