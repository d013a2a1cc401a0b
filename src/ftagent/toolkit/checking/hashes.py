"""Whether files have the hashes that the hub or our own marker gives them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from ftagent.toolkit.checking.findings import Finding, fault, listed, ok, one_line
from ftagent.toolkit.files import MARKER, sha256

LARGE = re.compile(r"[0-9a-f]{64}")
SMALL = re.compile(r"[0-9a-f]{40}")


def check_hashes(folder: Path) -> list[Finding]:
    """Compare every file whose hash is known. Reads those files whole."""
    findings = []
    expected = _of_hub(folder)
    if expected:
        findings.append(_compare(folder, "hashes", expected, "the hub", "delete the file and download it again"))
    if (folder / MARKER).is_file():
        findings.append(_check_marker(folder))
    return findings


def _check_marker(folder: Path) -> Finding:
    try:
        names = json.loads((folder / MARKER).read_text(encoding="utf-8"))["files"]
        if not all(Path(name).name == name and LARGE.fullmatch(value) for name, value in names.items()):
            raise ValueError("it does not give sha256 hashes of files in this folder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return fault("marker", f"{MARKER}: {one_line(error)}", "train or merge again")
    return _compare(folder, "marker", names, MARKER, "train or merge again")


def _of_hub(folder: Path) -> dict[str, str]:
    """Hash by name: from the blobs that the hub's cache links to, or from the records of a download to a folder.

    Large files have a sha256; others the hash of a git blob. Source: huggingface_hub, "Understand caching".
    """
    found = {}
    for path in folder.iterdir():
        if path.is_symlink() and path.readlink().parent.name == "blobs":
            found[path.name] = path.readlink().name
    for record in (folder / ".cache" / "huggingface" / "download").glob("*.metadata"):
        lines = record.read_text(encoding="utf-8", errors="replace").splitlines()
        name = record.name.removesuffix(".metadata")
        if len(lines) >= 2 and (folder / name).is_file():
            found.setdefault(name, lines[1].strip())
    return {name: value for name, value in found.items() if LARGE.fullmatch(value) or SMALL.fullmatch(value)}


def _compare(folder: Path, check: str, expected: dict[str, str], source: str, right: str) -> Finding:
    missing = [name for name in expected if not (folder / name).is_file()]
    if missing:
        return fault(check, f"{listed(missing)}: missing, though {source} names it", right)
    differing = [name for name, value in expected.items() if _hash(folder / name, value) != value]
    if differing:
        return fault(check, f"{listed(differing)}: not what {source} has the hash of", right)
    return ok(check, f"{len(expected)} files have the hashes of {source}")


def _hash(path: Path, like: str) -> str:
    if LARGE.fullmatch(like):
        return sha256(path)
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
