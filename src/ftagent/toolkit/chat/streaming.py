"""From token ids, as they come, to text: no half characters, thinking apart from the answer, no special tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

Channel = Literal["thinking", "content"]
REPLACEMENT = "\ufffd"
OPEN, CLOSE = "<think>", "</think>"
HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>")


@dataclass(frozen=True)
class Piece:
    """A piece of a reply's text. Those of one reply, joined by channel, are its thinking and its content."""

    channel: Channel
    text: str


class Detokeniser:
    """Text of ids that come one by one; all of it joined is what decoding them at once gives.

    A character may need several tokens, and a token's text may depend on the one before: text is given out when it
    does not end within a character, decoded after the last token whose text is out already. A character that never
    becomes whole is left out.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._before = 0
        self._told = 0

    def push(self, token: int) -> str:
        """The text that `token` completes; "" while a character is not whole."""
        self._ids.append(token)
        text = self._new_text()
        if text.endswith(REPLACEMENT):
            return ""
        return self._tell(text)

    def flush(self) -> str:
        """What was held back; afterwards it starts anew."""
        text = self._tell(self._new_text()).rstrip(REPLACEMENT)
        self._ids, self._before, self._told = [], 0, 0
        return text

    def _new_text(self) -> str:
        known = self._decode(self._ids[self._before : self._told])
        return self._decode(self._ids[self._before :])[len(known) :]

    def _tell(self, text: str) -> str:
        self._before, self._told = self._told, len(self._ids)
        return text

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False)) if ids else ""


class Splitter(Protocol):
    """Tells the thinking of a reply from its content."""

    done: bool
    """Whether the reply has ended, whatever else the model would write."""

    def text(self, text: str) -> list[Piece]: ...

    def special(self, token: str) -> list[Piece]: ...

    def end(self) -> list[Piece]: ...


class TagSplitter:
    """`<think>…</think>` before the content. `inside`: the prompt has opened it already."""

    done = False

    def __init__(self, inside: bool) -> None:
        self._state: Literal["start", "thinking", "after", "content"] = "thinking" if inside else "start"
        self._held = ""
        self._begun = False

    def text(self, text: str) -> list[Piece]:
        self._held += text
        found: list[Piece] = []
        while piece := self._take():
            found += [piece] if piece.text else []
        return found

    def special(self, token: str) -> list[Piece]:
        return self.text(token) if token in (OPEN, CLOSE) else []

    def end(self) -> list[Piece]:
        text, self._held = self._held, ""
        if self._state == "thinking":
            return [Piece("thinking", text.rstrip("\n"))] if text.rstrip("\n") else []
        return [Piece("content", text)] if text and self._state != "after" else []

    def _take(self) -> Piece | None:
        """The next piece of what is held, perhaps of no text; None when more text has to come first."""
        if self._state == "start":
            return self._start()
        if self._state == "thinking":
            return self._think()
        if self._state == "after":
            self._held = self._held.lstrip("\n")
            if not self._held:
                return None
            self._state = "content"
        text, self._held = self._held, ""
        return Piece("content", text) if text else None

    def _start(self) -> Piece | None:
        seen = self._held.lstrip()
        if seen.startswith(OPEN):
            self._state, self._held = "thinking", seen[len(OPEN) :]
        elif OPEN.startswith(seen):
            return None
        else:
            self._state = "content"
        return Piece("content", "")

    def _think(self) -> Piece | None:
        if not self._begun:
            self._held = self._held.lstrip("\n")
        thought, tag, rest = self._held.partition(CLOSE)
        if tag:
            self._state, self._held = "after", rest
            return Piece("thinking", thought.rstrip("\n"))
        # The line ends before the closing tag are not the thought's, and the tag may be here in part.
        keep = next((size for size in range(len(CLOSE) - 1, 0, -1) if thought.endswith(CLOSE[:size])), 0)
        whole = thought[: len(thought) - keep].rstrip("\n")
        if not whole:
            return None
        self._begun, self._held = True, self._held[len(whole) :]
        return Piece("thinking", whole)


class HarmonySplitter:
    """Channels of harmony: `final` is the content, every other is thinking. `header`: where the prompt left off."""

    def __init__(self, in_final: bool = False) -> None:
        self.done = False
        self._channel = "final"
        self._part: Literal["header", "channel", "body"] = "body" if in_final else "header"
        self._header = ""
        self._named = ""
        self._any = in_final

    def text(self, text: str) -> list[Piece]:
        if self._part == "body":
            self._any = True
            return [Piece("content" if self._channel == "final" else "thinking", text)]
        if self._part == "channel":
            self._named += text
        else:
            self._header += text
        return []

    def special(self, token: str) -> list[Piece]:
        if token == "<|start|>":
            self._part, self._channel = "header", "final"
        elif token == "<|channel|>":
            self._part, self._named = "channel", ""
        elif token == "<|message|>":
            self._channel = (self._named.split() or ["final"])[0]
            self._part, self._named = "body", ""
        elif token in ("<|end|>", "<|return|>", "<|call|>"):
            self.done = token != "<|end|>" or (self._part == "body" and self._channel == "final")
            self._part = "header"
        return []

    def end(self) -> list[Piece]:
        # A model that writes no channel at all is still heard.
        return [] if self._any or not self._header else [Piece("content", self._header)]


class ReplyReader:
    """Pieces of a reply from its ids. Special tokens are read, never shown."""

    def __init__(self, tokenizer: Any, splitter: Splitter) -> None:
        self._detokeniser = Detokeniser(tokenizer)
        self._splitter = splitter
        added = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items()}
        special = set(tokenizer.all_special_ids)
        harmony = isinstance(splitter, HarmonySplitter)
        self._marks = {
            index: token for index, token in added.items() if index in special or (harmony and token in HARMONY)
        }

    @property
    def done(self) -> bool:
        """Whether the reply has ended by what it says."""
        return self._splitter.done

    def token(self, token: int) -> list[Piece]:
        mark = self._marks.get(token)
        if mark is None:
            return self._text(self._detokeniser.push(token))
        return self._text(self._detokeniser.flush()) + self._splitter.special(mark)

    def end(self) -> list[Piece]:
        return self._text(self._detokeniser.flush()) + self._splitter.end()

    def _text(self, text: str) -> list[Piece]:
        return self._splitter.text(text) if text else []
