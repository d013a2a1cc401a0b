"""One Backend over all: scripted models by their file, every other model through LiteLLM."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ftagent.core.errors import RequestError
from ftagent.llm.litellm_backend import LiteLLMBackend
from ftagent.llm.scripted import PREFIX, ScriptedBackend, estimated_tokens
from ftagent.llm.types import CallFailed, ChatReply, ChatRequest, ModelChoice, Price, Usage

_KEY_NAME = re.compile(r"_(API_?KEY|API_TOKEN)$")


class Backends:
    """Chooses by the name of the model. `prices`, which users set, win over what is known.

    Raises RequestError where a script is asked for the first time and does not read.
    """

    def __init__(
        self, credentials: Mapping[str, str], prices: Mapping[str, Price], note: Callable[[str], None]
    ) -> None:
        self._credentials = dict(credentials)
        self._prices = dict(prices)
        self._litellm = LiteLLMBackend(credentials, note)
        self._scripts: dict[str, ScriptedBackend] = {}
        self._connected = False

    async def complete(self, request: ChatRequest) -> ChatReply:
        self._connected |= not request.choice.model.startswith(PREFIX)
        return await self._of(request.choice.model).complete(request)

    async def embed(self, choice: ModelChoice, texts: Sequence[str]) -> tuple[list[list[float]], Usage]:
        self._connected |= not choice.model.startswith(PREFIX)
        return await self._of(choice.model).embed(choice, texts)

    def price(self, model: str) -> Price | None:
        return self._prices.get(model) or self._of(model).price(model)

    def context_tokens(self, model: str) -> int:
        return self._of(model).context_tokens(model)

    def reply_tokens(self, model: str) -> int:
        return self._of(model).reply_tokens(model)

    def count_tokens(self, model: str, text: str) -> int:
        # A replay counts without the script.
        return estimated_tokens(text) if model.startswith(PREFIX) else self._litellm.count_tokens(model, text)

    def follows_schema(self, model: str) -> bool:
        return self._of(model).follows_schema(model)

    def check(self, choice: ModelChoice) -> None:
        """Raises RequestError where `choice` cannot be asked as things are set, without asking it."""
        if choice.model.startswith(PREFIX):
            self._of(choice.model)
            return
        from ftagent.llm.library import load_litellm
        from ftagent.llm.targets import target_of

        try:
            target = target_of(choice, self._credentials)
        except CallFailed as error:
            raise RequestError(str(error)) from error
        if target.api_key or (target.provider == "openai" and target.api_base):
            return
        found = load_litellm().validate_environment(model=target.model, api_base=target.api_base or None)
        missing = [name for name in found["missing_keys"] if not self._credentials.get(name, os.environ.get(name))]
        if keys := [name for name in missing if _KEY_NAME.search(name)]:
            raise RequestError(
                f"{choice.model}: no key; set {' and '.join(keys)} in the environment or in .env (`ftagent init` does)"
            )

    async def close(self) -> None:
        if self._connected:  # importing LiteLLM takes seconds
            await self._litellm.close()
            self._connected = False

    def _of(self, model: str) -> ScriptedBackend | LiteLLMBackend:
        if not model.startswith(PREFIX):
            return self._litellm
        if model not in self._scripts:
            self._scripts[model] = ScriptedBackend(Path(model.removeprefix(PREFIX)))
        return self._scripts[model]
