"""The report as one HTML file that needs nothing else: figures are embedded, nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import html
from pathlib import Path

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #1f2937; background: #fff; max-width: 62rem; margin: 2.5rem auto;
  padding: 0 1.25rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .8rem; padding-bottom: .3rem; border-bottom: 1px solid #e5e7eb; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: .8rem 0; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #e5e7eb; }
th { color: #6b7280; font-weight: 600; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
pre { background: #f6f8fa; border-radius: 6px; padding: .8rem 1rem; overflow-x: auto; line-height: 1.4; }
code { font: .87em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
:not(pre) > code { background: #f3f4f6; padding: .1em .3em; border-radius: 4px; }
img { max-width: 100%; height: auto; }
.add { color: #047857; } .del { color: #b91c1c; } .hunk { color: #6b7280; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def report_html(markdown: str, root: Path, language: str = "en") -> str:
    """HTML of a report. Images must lie below `root`; any other image is left out."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    for token in tokens:
        for child in token.children or []:
            if child.type == "image":
                child.attrSet("src", _embedded(root, str(child.attrGet("src") or "")))
    body = parser.renderer.render(_coloured(tokens), parser.options, {})
    heading = next((line[2:] for line in markdown.splitlines() if line.startswith("# ")), "Report")
    title = html.escape(heading.replace("\\", ""))
    return (
        f'<!doctype html>\n<html lang="{language}"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )


def _embedded(root: Path, source: str) -> str:
    path = (root / source).resolve()
    kind = {".svg": "svg+xml", ".png": "png"}.get(path.suffix)
    if not path.is_relative_to(root.resolve()) or kind is None or not path.is_file():
        return ""
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _coloured(tokens: list) -> list:  # type: ignore[type-arg]  # markdown-it's tokens
    """Diffs with their added and removed lines in colour."""
    for token in tokens:
        if token.type == "fence" and token.info.strip() == "diff":
            token.type = "html_block"
            lines = "\n".join(_diff_line(line) for line in token.content.rstrip("\n").split("\n"))
            token.content = f"<pre><code>{lines}</code></pre>\n"
    return tokens


def _diff_line(line: str) -> str:
    text = html.escape(line)
    for mark, name in (("+++", "hunk"), ("---", "hunk"), ("@@", "hunk"), ("+", "add"), ("-", "del")):
        if line.startswith(mark):
            return f'<span class="{name}">{text}</span>'
    return text
