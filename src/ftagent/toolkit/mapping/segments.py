"""Tokenising many texts that have long parts in common."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

CACHED_CHARACTERS = 8_000_000


class Tokeniser:
    """Ids of texts, the tokenizer's own special tokens at their ends not added.

    A tokenizer cuts a text at its special tokens before anything else, so the pieces between them can be
    tokenised once and put together. Where a probe shows that a tokenizer does otherwise, texts stay whole.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, tuple[int, ...]] = {}
        self._characters = 0
        self._cut = self._pattern()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        if self._characters > CACHED_CHARACTERS:
            self._known.clear()
            self._characters = 0
        split = [self._cut.split(text) if self._cut else [text] for text in texts]
        known = self._known
        missing = list(dict.fromkeys(piece for pieces in split for piece in pieces if piece and piece not in known))
        if missing:
            known.update(zip(missing, map(tuple, self._tokenise(missing)), strict=True))
            self._characters += sum(map(len, missing))
        rows = []
        for pieces in split:
            ids: list[int] = []
            for piece in pieces:
                if piece:
                    ids += known[piece]
            rows.append(ids)
        return rows

    def _tokenise(self, texts: list[str]) -> list[list[int]]:
        encoded = self._tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        return [list(ids) for ids in encoded["input_ids"]]

    def _pattern(self) -> re.Pattern[str] | None:
        """Matches the tokens at which cutting changes nothing; None where there are none."""
        tokens = list(self._tokenizer.added_tokens_decoder.values())
        if any(token.single_word for token in tokens):
            return None
        plain = [token for token in tokens if not (token.lstrip or token.rstrip or token.normalized)]
        names = sorted({token.content for token in plain}, key=lambda name: (-len(name), name))
        names = [name for name in names if name and not name.isspace()]
        if not names:
            return None
        pattern = re.compile("(" + "|".join(re.escape(name) for name in names) + ")")
        probe = "".join(f"{text}{name}" for name in names[:64] for text in ("a", " b \n", "\n\n1", ""))
        whole = self._tokenise([probe])[0]
        pieces = self._tokenise([piece for piece in pattern.split(probe) if piece])
        return pattern if whole == [token for piece in pieces for token in piece] else None
