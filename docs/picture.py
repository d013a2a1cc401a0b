"""Draws what a command printed as an SVG: `ftagent show last 2>&1 | python docs/picture.py docs/images/demo.svg`."""

from __future__ import annotations

import argparse
import io
import re
import sys
from pathlib import Path


def draw(printed: str, title: str, width: int) -> str:
    """Terminal output, escape codes and all, as an SVG without anything to fetch."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(printed.rstrip()), soft_wrap=False)
    svg = console.export_svg(title=title, unique_id="ftagent")
    return re.sub(r"@font-face \{.*?\}\n?", "", svg, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--title", default="ftagent")
    parser.add_argument("--width", type=int, default=110)
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(draw(sys.stdin.read(), arguments.title, arguments.width))


if __name__ == "__main__":
    main()
