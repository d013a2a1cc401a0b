"""What can be said of an experiment's files without executing them."""

from __future__ import annotations

from collections.abc import Sequence

from ftagent.core.types import Execution, Files


def static_check(files: Files, required: Sequence[str] = ()) -> Execution | None:
    """The failure that executing `files` would only repeat at a higher price; None when there is none.

    `required`: files without which nothing can be executed.
    """
    if not files:
        return Execution("check", "failed", 0.0, detail="no file that may be written")
    if missing := [name for name in required if name not in files]:
        return Execution("check", "failed", 0.0, detail=f"missing: {', '.join(missing)}")
    for name in files:
        if name.endswith(".py"):
            try:
                compile(files[name], name, "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                line = getattr(error, "lineno", None)
                return Execution("check", "failed", 0.0, detail=f"{name}:{line or 1}: {error}")
    return None
