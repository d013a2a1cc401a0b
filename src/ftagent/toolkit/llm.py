"""Language models for scripts in a workspace: `ask` and `ask_many`, with nothing but the standard library.

They answer in stages that may use them (see docs/broker.md). Any OpenAI-compatible client works there too, as it is.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ftagent.toolkit.errors import ToolkitError

Prompt = str | Sequence[dict[str, str]]
"""The user's words, or a conversation of {"role", "content"}."""


class ModelError(ToolkitError):
    """A language model did not answer. `code` is the broker's word for why (`budget_exceeded`, …)."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


def ask(prompt: Prompt, model: str = "strong", **parameters: Any) -> str:
    """The reply's text. `parameters` are those of OpenAI's chat completions: temperature, max_tokens, seed, ….

    Raises ModelError when there is no language model, the budget is spent, or the model cannot answer this.
    """
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    document = _post("/chat/completions", {**parameters, "model": model, "messages": messages})
    return str(document["choices"][0]["message"]["content"] or "")


def ask_many(prompts: Iterable[Prompt], model: str = "strong", workers: int = 8, **parameters: Any) -> list[str]:
    """`ask` for each prompt, `workers` at once; replies in the order of the prompts.

    Raises ModelError with the first prompt that has no reply; those after it that had not begun are not asked.
    """
    with ThreadPoolExecutor(max_workers=workers) as pool:
        replies = [pool.submit(ask, prompt, model, **parameters) for prompt in prompts]
        try:
            return [reply.result() for reply in replies]
        except ModelError:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _post(path: str, body: dict[str, Any]) -> dict[str, Any]:
    base, key = os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_KEY", "")
    if not base:
        raise ModelError("no language model answers here: OPENAI_BASE_URL is not set (see docs/broker.md)", "no_model")
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(base.rstrip("/") + path, json.dumps(body).encode(), headers)
    try:
        # Without a limit: the broker has its own for every call, and a call may wait for its turn.
        with urllib.request.urlopen(request) as response:
            document: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        raise _refusal(error) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"the language model's endpoint does not answer: {error}", "unreachable") from error
    return document


def _refusal(error: urllib.error.HTTPError) -> ModelError:
    try:
        said = json.load(error)["error"]
        return ModelError(str(said["message"]), str(said.get("code") or ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ModelError(f"the language model's endpoint answered with HTTP status {error.code}")
