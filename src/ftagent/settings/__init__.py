"""What users set in the environment and in `.env`. A `Settings` object is loaded once and passed around.

The names below are looked up on first use: `ftagent.settings.dotenv` stays usable without the cost of pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftagent.settings.loading import Settings, load

__all__ = ["Settings", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ftagent.settings import loading

    return getattr(loading, name)
