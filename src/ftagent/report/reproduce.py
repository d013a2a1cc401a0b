"""The shell script that trains an experiment again from the run record, without the loop."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ftagent.core.run_folder import RunFolder
from ftagent.core.types import Experiment, Stage

_HEAD = """\
#!/bin/sh
# Trains {subject} again, from the record of run {run}.
# Usage: sh reproduce.sh OUT     (OUT: a folder that does not exist yet)
# PYTHON=... chooses the interpreter; {inputs}.
# This runs the experiment's commands without a sandbox: read files/ first.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
out=${{1:?usage: sh reproduce.sh OUT}}
python=${{PYTHON:-python3}}
if [ -e "$out" ]; then echo "error: $out exists already" >&2; exit 2; fi
if ! "$python" -c 'import ftagent' 2>/dev/null; then
  echo "error: $python has no ftagent; set PYTHON to one that has" >&2; exit 2
fi
"""
_SUMS = """\
digest() { "$python" -c 'import hashlib, sys
print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$1"; }
check() {
  if [ "$(digest "$here/files/$1")" != "$2" ]; then
    echo "error: files/$1 is not the file that was recorded" >&2; exit 1
  fi
}
"""
_VERSIONS = """\
version() {
  found=$("$python" -c 'import importlib.metadata as m, sys
try: print(m.version(sys.argv[1]))
except m.PackageNotFoundError: print("none")' "$1")
  if [ "$found" != "$2" ]; then echo "warning: $1 is $found here, $2 in the record" >&2; fi
}
"""
_TAIL = """\
echo "done: $out"
"""


def reproduce_script(folder: RunFolder, item: Experiment, stages: Sequence[Stage], record: dict[str, Any]) -> str:
    """POSIX shell: checks the recorded files' digests, lays them out in OUT, runs the recorded commands there.

    The weights that come out are compared with those in best/.
    """
    names = sorted({mount.name for stage in stages for mount in stage.mounts})
    inputs = ", ".join(f"FTAGENT_INPUT_{name}=..." for name in names)
    said = f"{inputs} moves an input" if inputs else "there are no inputs"
    subject = "the default configuration" if item.loop < 0 else f"the experiment of loop {item.loop}"
    lines = [_HEAD.format(subject=subject, run=_comment(folder.name), inputs=said)]
    lines += [_SUMS, *_checks(item), "", *_versions(record), 'mkdir -p "$out"', 'cp -R "$here/files/." "$out/"']
    lines += ['cd "$out"', "out=$(pwd)", ""]
    for stage in stages:
        lines += [*_stage(stage), ""]
    lines += [*_compare(folder), _TAIL]
    return "\n".join(lines)


def _comment(text: str) -> str:
    """Text that stays inside its comment line."""
    return "".join(char for char in text if char.isprintable())[:150]


def _checks(item: Experiment) -> Iterator[str]:
    for name, text in sorted(item.files.items()):
        yield f"check {shlex.quote(name)} {hashlib.sha256(text.encode()).hexdigest()}"


def _versions(record: dict[str, Any]) -> list[str]:
    versions = record.get("versions")
    if not isinstance(versions, dict):
        return []
    named = [(str(name), str(version)) for name, version in versions.items() if name != "python" and version]
    if not named:
        return []
    return [_VERSIONS, *(f"version {shlex.quote(name)} {shlex.quote(version)}" for name, version in named), ""]


def _stage(stage: Stage) -> Iterator[str]:
    yield f"echo {shlex.quote(f'stage {stage.name}')}"
    if stage.llm:
        said = f"warning: {stage.name} may ask language models; `ftagent replay RUN --execute` answers from the record"
        yield f'if [ -z "${{OPENAI_BASE_URL:-}}" ]; then echo {shlex.quote(said)} >&2; fi'
    for name, text in sorted(stage.files.items()):
        quoted = shlex.quote(name)
        if (parent := Path(name).parent.as_posix()) != ".":
            yield f"mkdir -p -- {shlex.quote(parent)}"
        # A quoted string holds any text but NUL as it is; a here-document cannot hold its own end mark.
        yield f"printf %s {shlex.quote(text)} > {quoted}"
    for mount in stage.mounts:
        variable = f"FTAGENT_INPUT_{mount.name}"
        yield f"{variable}=${{{variable}:-{_default(mount.source)}}}; export {variable}"
        yield (
            f'if [ ! -e "${variable}" ]; then echo "error: input $'
            f'{variable} is missing; set {variable}" >&2; exit 1; fi'
        )
    words = [f"{name}={shlex.quote(value)}" for name, value in sorted(stage.variables.items())]
    command = list(stage.command)
    head = ['"$python"'] if command[:1] == ["python"] else [shlex.quote(word) for word in command[:1]]
    yield " ".join([*words, *head, *(shlex.quote(word) for word in command[1:])])


def _default(source: str) -> str:
    """`source` as the default in `${NAME:-…}`: quotes there are quotes, and `}` would end it."""
    return shlex.quote(source).replace("}", "'\"}\"'") if "}" in source else shlex.quote(source)


def _compare(folder: RunFolder) -> Iterator[str]:
    for path in sorted(folder.best.glob("*.safetensors")):
        name = shlex.quote(path.name)
        recorded = _digest(path)
        yield f'made=$(find "$out" -name {name} -type f | head -n 1)'
        yield (
            f'if [ -z "$made" ]; then echo "warning: no {_comment(path.name)} came out" >&2; '
            f'elif [ "$(digest "$made")" = {recorded} ]; then echo "same weights as recorded"; '
            'else echo "weights differ from the record (hardware or versions differ)"; fi'
        )


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
