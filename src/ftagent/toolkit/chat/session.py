"""A conversation of several turns with one model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ftagent.toolkit.chat.engine import Engine, Sampling
from ftagent.toolkit.chat.streaming import Piece, ReplyReader, Splitter
from ftagent.toolkit.chat.template import ChatTemplate
from ftagent.toolkit.data import Message
from ftagent.toolkit.errors import ToolkitError

__all__ = ["Reply", "Sampling", "Session"]

Ended = Literal["stop", "length", "context", "interrupted"]


@dataclass(frozen=True)
class Reply:
    """An answer. `ended` tells why: the model's end of turn, max_new_tokens, the model's context, or the user.

    Of `prompt_tokens`, `reused_tokens` were computed in an earlier turn. `dropped` counts messages that the model
    did not see because its context is full.
    """

    content: str
    thinking: str
    ended: Ended
    prompt_tokens: int
    reused_tokens: int
    new_tokens: int
    seconds: float
    dropped: int


def _never() -> bool:
    return False


class Session:
    """`messages` are all that was said, without the system prompt; `reply` is the last answer if there was one."""

    def __init__(self, engine: Engine, template: ChatTemplate, sampling: Sampling, system: str = "") -> None:
        self._engine, self._template, self._sampling = engine, template, sampling
        self.system = system
        self.messages: list[Message] = []
        self.reply: Reply | None = None
        self._first = 0
        self._attempt = 0

    @property
    def greedy(self) -> bool:
        return self._sampling.temperature == 0

    def ask(self, text: str, stopped: Callable[[], bool] = _never) -> Iterator[Piece]:
        """Answer `text`, piece by piece; `reply` is there at the end. `stopped` is asked before each token.

        Raises ToolkitError, and forgets `text`, where it does not fit the model or its template.
        """
        self._attempt = 0
        return self._answer(text, stopped)

    def retry(self, stopped: Callable[[], bool] = _never) -> Iterator[Piece]:
        """Answer the last text again, with other random numbers. The old answer stays where there is no new one.

        Raises ToolkitError when nothing was asked.
        """
        asked = [index for index, message in enumerate(self.messages) if message["role"] == "user"]
        if not asked:
            raise ToolkitError("nothing was asked yet")
        self._attempt += 1
        return self._again(asked[-1], stopped)

    def _again(self, index: int, stopped: Callable[[], bool]) -> Iterator[Piece]:
        before = self.messages[index:]
        del self.messages[index:]
        try:
            yield from self._answer(before[0]["content"], stopped)
        finally:
            if self.reply is None:
                self.messages += before

    def reset(self) -> None:
        """Forget what was said; the system prompt stays."""
        self.messages.clear()
        self.reply, self._first, self._attempt = None, 0, 0

    def follow(self, other: Session) -> None:
        """Take over what was said in `other`."""
        self.reset()
        self.messages += other.messages
        self.system, self._first = other.system, other._first

    def _answer(self, text: str, stopped: Callable[[], bool]) -> Iterator[Piece]:
        self.reply = None
        self.messages.append({"role": "user", "content": text})
        try:
            yield from self._generate(stopped)
        finally:
            if self.reply is None:  # as if it had not been asked
                self.messages.pop()

    def _generate(self, stopped: Callable[[], bool]) -> Iterator[Piece]:
        started = time.monotonic()
        prompt, splitter, room, dropped = self._fit()
        generator = self._sampling.generator(len(self.messages), self._attempt)
        most = min(self._sampling.max_new_tokens, room)
        said: dict[str, list[str]] = {"thinking": [], "content": []}
        reader = ReplyReader(self._template.tokenizer, splitter)
        count = 0
        for token in self._engine.tokens(prompt, most, self._sampling, generator, stopped):
            count += 1
            for piece in reader.token(token):
                said[piece.channel].append(piece.text)
                yield piece
            if reader.done:
                break
        for piece in reader.end():
            said[piece.channel].append(piece.text)
            yield piece
        content, thinking = "".join(said["content"]), "".join(said["thinking"])
        ended: Ended = "stop" if reader.done else self._engine.ended
        if ended == "length" and most == room:
            ended = "context"
        if ended == "interrupted" and not content and not thinking:
            return
        answer: Message = {"role": "assistant", "content": content}
        self.messages.append({**answer, "thinking": thinking} if thinking else answer)
        self.reply = Reply(
            content=content, thinking=thinking, ended=ended, prompt_tokens=len(prompt),
            reused_tokens=self._engine.reused, new_tokens=count,
            seconds=round(time.monotonic() - started, 3), dropped=dropped,
        )  # fmt: skip

    def _fit(self) -> tuple[list[int], Splitter, int, int]:
        """(prompt, its splitter, tokens left for the answer, messages dropped now) within the model's context."""
        limit = self._engine.limit
        before = self._first
        while True:
            prompt, splitter = self._template.prompt(self._seen(), "message")
            if limit is None:
                return prompt, splitter, self._sampling.max_new_tokens, 0
            room = limit - len(prompt)
            if room >= min(self._sampling.max_new_tokens, limit // 4):
                return prompt, splitter, room, self._first - before
            following = next(
                (index for index in range(self._first + 1, len(self.messages))
                 if self.messages[index]["role"] == "user"), None,
            )  # fmt: skip
            if following is None and room > 0:
                return prompt, splitter, room, self._first - before
            if following is None:
                self._first = before
                raise ToolkitError(
                    f"{len(prompt)} tokens in this message and the system prompt exceed the model's {limit}; shorten it"
                )
            self._first = following

    def _seen(self) -> list[Message]:
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return system + self.messages[self._first :]
