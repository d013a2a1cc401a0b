"""The command line. `main` is the console script."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ftagent.core.errors import FtagentError
from ftagent.toolkit.errors import ToolkitError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code: 0 done, 1 failed, 2 wrong request, 3 resumable, 130."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    raise SystemExit(run(words))


def run(words: list[str]) -> int:
    """Run one command line; returns its exit code. Every error becomes one line on stderr."""
    import typer

    from ftagent.cli.root import build

    debug = "--debug" in words
    try:
        result = build().main(args=words, prog_name="ftagent", standalone_mode=False)
    except FtagentError as error:
        return _fail(str(error), error.exit_code, debug)
    except ToolkitError as error:
        return _fail(str(error), error.exit_code, debug)
    except typer.TyperException as error:
        return _fail(_usage(error), 2, debug)
    except typer.Abort:
        return _fail("not done: nothing was confirmed", 2, debug)
    except Exception as error:  # noqa: BLE001  # the last line of defence: users get one line, --debug the traceback
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return _fail(f"unexpected {text} (--debug shows where)", 1, debug)
    return result if isinstance(result, int) else 0


def _usage(error: Exception) -> str:
    message = getattr(error, "format_message", error.__str__)().rstrip(".").replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    return f"{message}; see `{context.command_path} --help`" if context else message


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    from ftagent.report.text import clean

    # Some libraries' messages have several lines, and some quote what a model or a data set says.
    print("error:", clean(message), file=sys.stderr)  # noqa: T201
    return code
