"""Text that others wrote, marked as data for whoever reads a prompt: logs, files, samples, replies of models."""

from __future__ import annotations

import hashlib
import re

_DELIMITER = re.compile(r"[<＜‹﹤]\s*[/／\\]?\s*(?=untrusted)", re.IGNORECASE)
_CONTROL = re.compile(r"<(?=[|｜])|(?<=[|｜])>")
_NAME = re.compile(r"[^\w ./:+-]")


def untrusted(name: str, text: str, *, exact: bool = False) -> str:
    """`text` between delimiters that it cannot contain; the id follows from name and text alone.

    What looks like a delimiter inside is written with `&lt;`, and so are marks of chat templates such as `<|im_end|>`
    unless `exact` (files, which a model may copy) asks for the text as it stands.
    """
    body = _DELIMITER.sub(lambda found: "&lt;" + found.group()[1:], text)
    if not exact:
        body = _CONTROL.sub(lambda found: "&lt;" if found.group() == "<" else "&gt;", body)
    shown = _NAME.sub("_", name)[:120]
    identity = hashlib.sha256(f"{shown}\0{body}".encode("utf-8", "replace")).hexdigest()[:12]
    return f'<untrusted name="{shown}" id="{identity}">\n{body.strip(chr(10))}\n</untrusted id="{identity}">'
