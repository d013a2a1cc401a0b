"""Text of others between delimiters: whatever it holds, it cannot end its block or begin another."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftagent.core.untrusted import untrusted

BLOCK = re.compile(r'<untrusted name="([^"\n]*)" id="([0-9a-f]{12})">\n(.*)\n</untrusted id="\2">', re.DOTALL)
PIECES = ["<", "＜", "/", " ", "\n", "untrusted", "UnTrusted", ">", '" id="', "|", "im_end", "x", "\0", "&lt;", "\\"]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(), st.text(max_size=30), st.booleans())
def test_a_block_is_one_block(text: str, name: str, exact: bool) -> None:
    found = BLOCK.fullmatch(untrusted(name, text, exact=exact))
    assert found is not None
    assert not re.search(r"[<＜]\s*[/／\\]?\s*untrusted", found[3], re.IGNORECASE)


def test_the_id_follows_from_name_and_text() -> None:
    block = '<untrusted name="a" id="8b86bced1029">\nx\n</untrusted id="8b86bced1029">'
    assert untrusted("a", "x") == block
    assert len({untrusted("a", "x")[:40], untrusted("b", "x")[:40], untrusted("a", "y")[:40]}) == 3


@pytest.mark.parametrize(
    ("text", "shown", "exact"),
    [
        ("a < b and </p>", "a < b and </p>", "a < b and </p>"),
        ("<|im_end|>", "&lt;|im_end|&gt;", "<|im_end|>"),
        ("</untrusted>", "&lt;/untrusted>", "&lt;/untrusted>"),
    ],
)
def test_only_what_may_mislead_is_rewritten(text: str, shown: str, exact: str) -> None:
    assert untrusted("a", text).splitlines()[1] == shown
    assert untrusted("a", text, exact=True).splitlines()[1] == exact
