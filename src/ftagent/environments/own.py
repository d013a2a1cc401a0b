"""Somebody's own environment, named `module:factory` where a built-in one is named by a word."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ftagent.core.errors import RequestError

if TYPE_CHECKING:
    from ftagent.environments.registry import Described

NEEDED = ("name", "sealed", "describe", "prepare", "modules", "execute", "close")


def own_environment(reference: str) -> Described:
    """What `factory` of an importable `module` makes without arguments; a class is a factory.

    Raises RequestError where there is none, or where it lacks what every environment has.
    """
    module, _, name = reference.partition(":")
    try:
        factory: Any = getattr(import_module(module), name)
    except ImportError as error:
        raise RequestError(f"--env {reference}: module {module!r} cannot be imported: {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise RequestError(f"--env {reference}: {error}; give module:class") from error
    try:
        environment: Described = factory()
    except TypeError as error:
        raise RequestError(f"--env {reference}: cannot be made without arguments: {error}") from error
    if missing := [needed for needed in NEEDED if not hasattr(environment, needed)]:
        raise RequestError(f"--env {reference}: is no environment, it lacks {', '.join(missing)}")
    return environment
