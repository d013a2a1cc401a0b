"""What `--script` and `--space` name, read once when a run starts and kept in its record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ftagent.core.errors import RequestError, StageRefused
from ftagent.core.workspace import safe_parts
from ftagent_hpo.space_file import SpaceFile, parse_space

INPUTS = "inputs of {}"
"""The document that tells where the inputs of a space lay: name → absolute path."""
INTERPRETERS = {".py": "python", ".sh": "bash"}


@dataclass(frozen=True)
class ScriptFiles:
    """A script with its space and what it needs."""

    name: str
    """Of the script in its workspace."""
    script: str
    space: SpaceFile
    source: str
    """Path of space.yaml as given."""
    files: Mapping[str, str]
    """Further files of the workspace."""
    inputs: Mapping[str, str]


def read_script_documents(script: str | None, space: str | None) -> dict[str, str]:
    """Texts of the script, its space and the space's `files`, and where its inputs lie. Raises RequestError."""
    if not script:
        return {}
    if not space:
        raise RequestError(f"--script {script}: needs --space FILE, which says what may be tuned and what it measures")
    documents = {script: _read(Path(script), f"--script {script}"), space: _read(Path(space), f"--space {space}")}
    found = parse_space(documents[space], space).model
    folder = Path(space).expanduser().parent
    for name in found.files:
        documents[_beside(space, name)] = _read(folder / name, f"{space}: files: {name}")
    inputs = {name: str((folder / Path(path).expanduser()).absolute()) for name, path in found.inputs.items()}
    for name, path in inputs.items():
        if not Path(path).exists():
            raise RequestError(f"{space}: inputs.{name}: {path}: no such file or folder")
    documents[INPUTS.format(space)] = json.dumps(inputs)
    return documents


def script_files(script: str, space: str, documents: Mapping[str, str]) -> ScriptFiles:
    """From the documents of a run. Raises RequestError, one line that tells every fault."""
    if not space or script not in documents:
        documents = {**documents, **read_script_documents(script, space)}
    found = parse_space(documents[space], space)
    name = PurePosixPath(script).name
    if PurePosixPath(name).suffix not in INTERPRETERS:
        raise RequestError(f"--script {script}: must be a Python script (.py) or a shell script (.sh)")
    _check_script(script, documents[script])
    files = {}
    for other in found.model.files:
        try:
            files["/".join(safe_parts(other))] = documents[_beside(space, other)]
        except StageRefused as error:
            raise RequestError(f"{space}: files: {error}") from error
    if name in files:
        raise RequestError(f"{space}: files: {name} is the script itself")
    return ScriptFiles(name, documents[script], found, space, files, json.loads(documents[INPUTS.format(space)]))


def _beside(space: str, name: str) -> str:
    return str(PurePosixPath(space).parent / name)


def _check_script(path: str, text: str) -> None:
    if PurePosixPath(path).suffix == ".py":
        try:
            compile(text, path, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None) or 1
            raise RequestError(f"{path}:{line}: not Python: {getattr(error, 'msg', None) or error}") from error


def _read(path: Path, shown: str) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{shown}: is no UTF-8 text") from error
    except OSError as error:
        raise RequestError(f"{shown}: cannot be read: {error.strerror}") from error
