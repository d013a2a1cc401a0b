"""What software a command finds, so that results of another one are not taken for its own."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from pathlib import Path

from ftagent.environments import sandbox


def software(python: Path, import_roots: Iterable[Path]) -> str:
    """Of an interpreter and its packages: versions by the names of their metadata, and our own code by content."""
    digest = hashlib.sha256(f"{platform.machine()} {python.resolve()} {_changed(python)}".encode())
    for root in sandbox.interpreter_roots(python):
        for folder in sorted(root.glob("lib/python3*/site-packages")):
            digest.update(_packages(folder))
    for folder in import_roots:
        digest.update(_packages(folder))
    return f"{digest.hexdigest()[:16]}-{own_code()}"


def container_software(image: str, packages: Iterable[Path]) -> str:
    """Of a container: its image's id, what is lent to it, and our own code by content."""
    digest = hashlib.sha256(image.encode())
    for folder in packages:
        digest.update(_packages(folder))
    return f"{digest.hexdigest()[:16]}-{own_code()}"


def own_code() -> str:
    """Of the package's modules that commands execute, and of their defaults."""
    digest = hashlib.sha256()
    for path in sorted((sandbox.package_folder() / "toolkit").rglob("*")):
        if path.suffix in (".py", ".yaml"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _packages(folder: Path) -> bytes:
    names = sorted(path.name for path in folder.glob("*-info")) if folder.is_dir() else []
    return f"{folder} {_changed(folder)} {names}".encode()


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
