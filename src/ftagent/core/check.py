"""What can be said of an experiment's files without executing them.

It saves the price of a stage that cannot succeed. It is no security boundary: that is the environment's.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath

from ftagent.core.types import Execution, Files

STATIC_CHECK = "static check"
"""What a fault is journaled as, in the place of a stage."""
MAX_LINES = 10
NO_MODULE = "no module {!r} in this environment"
MAX_NESTING = 200
"""Brackets in a YAML file: the time to read more of them grows with their square."""
ALLOWED_PATHS = ("/tmp", "/dev/null", "/dev/shm")
"""Absolute paths that a command may name; its inputs it finds in variables FTAGENT_INPUT_<NAME>."""
_MISSING_IMPORT = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}
_OPENING = {"open", "Path", "PosixPath"}
_OPENING_OF = {
    "io": {"open", "open_code"},
    "codecs": {"open"},
    "gzip": {"open"},
    "bz2": {"open"},
    "lzma": {"open"},
    "pathlib": {"Path", "PosixPath"},
    "glob": {"glob", "iglob"},
    "shutil": {"copy", "copy2", "copyfile", "copytree", "move", "rmtree"},
    "os": {"open", "listdir", "scandir", "walk", "mkdir", "makedirs", "remove", "unlink", "rename", "replace",
           "rmdir", "chdir", "link", "symlink", "stat"},
}  # fmt: skip
"""Calls whose arguments are paths."""


def static_check(
    files: Files,
    required: Sequence[str] = (),
    modules: Collection[str] = (),
    reserved: Sequence[str] = (),
) -> Execution | None:
    """The failure that executing `files` would only repeat at a higher price; None when there is none.

    `required`: files without which nothing can be executed. `modules`: what a command can import; when that is empty
    it is unknown, and imports are not checked. `reserved`: files and folders that stages write, which an experiment
    must not bring. All faults are told at once: the first in `detail`, at most ten lines in `tail`.
    """
    faults = list(_faults(files, required, modules, reserved))
    if not faults:
        return None
    shown = faults if len(faults) <= MAX_LINES else faults[: MAX_LINES - 1]
    lines = [*shown, f"and {len(faults) - len(shown)} more"] if len(shown) < len(faults) else shown
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Execution(STATIC_CHECK, "failed", 0.0, detail=faults[0] + more, tail="\n".join(lines) + "\n")


def _faults(files: Files, required: Sequence[str], modules: Collection[str], reserved: Sequence[str]) -> Iterator[str]:
    if not files:
        yield "no file that may be written"
        return
    for name in required:
        if name not in files:
            yield f"{name}: this file is missing"
    own = _own_modules(files)
    for name in files:
        if written := [place for place in reserved if _inside(name, place)]:
            yield f"{name}: a stage writes {written[0]}, an experiment must not bring it"
        suffix = PurePosixPath(name).suffix
        if suffix == ".py":
            yield from _python(name, files[name], own, modules)
        elif suffix == ".json":
            yield from _json(name, files[name])
        elif suffix in (".yaml", ".yml"):
            yield from _yaml(name, files[name])


def _inside(name: str, place: str) -> bool:
    parts, folder = PurePosixPath(name).parts, PurePosixPath(place).parts
    return parts[: len(folder)] == folder


def _own_modules(files: Files) -> set[str]:
    """Names under which the experiment's files may import each other, wherever a script among them starts."""
    paths = [PurePosixPath(name) for name in files if name.endswith(".py")]
    return {part.removesuffix(".py") for path in paths for part in path.parts}


def _python(name: str, text: str, own: set[str], modules: Collection[str]) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape runs all the same
            tree = ast.parse(text, name)
            compile(tree, name, "exec", dont_inherit=True)
    except SyntaxError as error:
        shown = f": {error.text.strip()[:80]}" if error.text and error.text.strip() else ""
        yield f"{name}:{error.lineno or 1}: {error.msg}{shown}"
        return
    except (ValueError, RecursionError, MemoryError) as error:  # NUL bytes; nested deeper than Python compiles
        yield f"{name}:1: {str(error) or 'nested too deeply'}"
        return
    missing = {what: line for line, what in sorted(_missing(tree, own, modules), reverse=True)} if modules else {}
    places = [(line, NO_MODULE.format(module)) for module, line in missing.items()] + list(_paths(tree))
    yield from (f"{name}:{line}: {what}" for line, what in sorted(places))


def _missing(tree: ast.AST, own: set[str], modules: Collection[str]) -> Iterator[tuple[int, str]]:
    """(line, module) of what cannot be imported. An import whose failure is handled is left out."""
    handled = {
        id(inner)
        for node in ast.walk(tree)
        if (isinstance(node, ast.Try) and any(_handles(handler.type) for handler in node.handlers))
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in handled or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            names = [node.module] if node.module and not node.level else []
        for name in names:
            top = name.partition(".")[0]
            if top not in own and top not in modules and top not in sys.builtin_module_names:
                yield node.lineno, top


def _handles(kind: ast.expr | None) -> bool:
    named = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return kind is None or any(isinstance(one, ast.Name) and one.id in _MISSING_IMPORT for one in named)


def _paths(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, fault) of constant paths that lead out of the workspace, in calls that open or move files."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not _takes_paths(node.func):
            continue
        for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
            path = _beginning(argument)
            if path is not None and (why := _forbidden(path)):
                yield node.lineno, f"path {path[:80]!r} {why}; files lie in the workspace or in FTAGENT_INPUT_*"


def _takes_paths(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id in _OPENING
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return function.attr in _OPENING_OF.get(function.value.id, ())
    return False


def _beginning(value: ast.expr) -> str | None:
    """The constant text that a path begins with; None where it begins with something computed."""
    if isinstance(value, ast.Constant):
        return value.value if isinstance(value.value, str) else None
    if isinstance(value, ast.JoinedStr):
        return _beginning(value.values[0]) if value.values else None
    if isinstance(value, ast.BinOp):
        return _beginning(value.left)
    return None


def _forbidden(path: str) -> str:
    """Why a path leads out of the workspace; empty when it does not."""
    if path.startswith("~"):
        return "leads to a home folder"
    if ".." in path.split("/"):
        return "leads out of the workspace"
    if path.startswith("/") and not any(path == one or path.startswith(f"{one}/") for one in ALLOWED_PATHS):
        return "is absolute"
    return ""


def _json(name: str, text: str) -> Iterator[str]:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        yield f"{name}:{error.lineno}: not JSON: {error.msg}"
    except (ValueError, RecursionError) as error:
        yield f"{name}:1: not JSON: {str(error)[:100]}"


def _yaml(name: str, text: str) -> Iterator[str]:
    import yaml

    depth = deepest = 0
    for sign in re.findall(r"[\[\]{}]", text):
        depth += 1 if sign in "[{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_NESTING:
        yield f"{name}:1: not YAML that can be read: nested too deeply"
        return
    try:
        # Parsed, not loaded: tags may be meant for whoever reads the file, and the parser in C, unlike its loader,
        # neither recurses nor takes seconds for a large file.
        for _ in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            pass
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or " ".join(str(error).split())[:100]
        yield f"{name}:{mark.line + 1 if mark else 1}: not YAML: {what}"
    except (ValueError, RecursionError) as error:
        yield f"{name}:1: not YAML: {str(error)[:100]}"
