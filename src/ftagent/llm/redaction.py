"""Keeping secrets out of prompts, replies, error messages and logs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote

if TYPE_CHECKING:
    from ftagent.llm.types import ChatReply
    from ftagent.settings import Settings

MARK = "[redacted]"
SHORTEST = 6
"""Characters. Shorter secrets would be found by chance in ordinary text, and are left alone."""
_NO_SECRET = re.compile(r"_(API_BASE|BASE_URL|API_VERSION|REGION_NAME|LOCATION|PROJECT|URL|PROJECT_ID)$")
_SECRET_NAME = re.compile(r"key|token|secret|password|authorization|headers?$|credential", re.IGNORECASE)
_LIMIT_NAME = re.compile(r"tokens$|_per_token$", re.IGNORECASE)
_USER_INFO = re.compile(r"://(?:[^/@\s:]*:)?([^/@\s]+)@")


class Redactor:
    """Replaces secrets by `[redacted]`: as they are, in base64, quoted for URLs, escaped for JSON and Python."""

    def __init__(self, secrets: Iterable[str]) -> None:
        given = {secret.strip() for secret in secrets} - {""}
        kept = {secret for secret in given if len(secret) >= SHORTEST}
        self.too_short = len(given - kept)
        """How many secrets are left alone because they are too short."""
        # The longest first: one secret, or one form of it, may be a part of another.
        self._forms = sorted({form for secret in kept for form in _forms(secret)}, key=lambda form: (-len(form), form))

    def redact(self, text: str) -> str:
        """`text` without secrets. Linear in its length."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MARK)
        return text

    def document(self, value: Any) -> Any:
        """The same for every text in a plain JSON value, keys included."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, dict):
            return {self.document(key): self.document(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.document(item) for item in value]
        return value

    def reply(self, reply: ChatReply) -> ChatReply:
        """The same for every text of a reply."""
        return replace(
            reply,
            content=self.redact(reply.content),
            reasoning=self.redact(reply.reasoning),
            refusal=self.redact(reply.refusal),
        )


def secrets_of(settings: Settings) -> list[str]:
    """Every secret that the settings hold: keys, tokens, and passwords inside addresses."""
    found = [secret.get_secret_value() for secret in (settings.chat.openai_api_key, settings.hub.hf_token) if secret]
    if settings.finetune.judge_api_key:
        found.append(settings.finetune.judge_api_key.get_secret_value())
    for name, secret in settings.credentials.items():
        if not _NO_SECRET.search(name):
            found.append(secret.get_secret_value())
        found += _in_address(secret.get_secret_value())
    for address in (settings.chat.openai_api_base, settings.finetune.judge_api_base, settings.fleet.sync_url):
        found += _in_address(address or "")
    for options in settings.chat.litellm_chat_model_map.values():
        found += _in_options(options)
    return found


def _in_address(address: str) -> list[str]:
    return [form for password in _USER_INFO.findall(address) for form in (password, unquote(password))]


def _in_options(value: Any, secret: bool = False) -> list[str]:
    """Texts under a name that tells of a secret, and passwords in all other texts."""
    if isinstance(value, str):
        # `Authorization: Bearer …`: the scheme is no part of the secret.
        return [value, *value.split()[1:]] if secret else _in_address(value)
    if isinstance(value, dict):
        return [
            found
            for name, item in value.items()
            for found in _in_options(item, secret or _is_secret(str(name)))
        ]  # fmt: skip
    if isinstance(value, list):
        return [found for item in value for found in _in_options(item, secret)]
    return []


def _is_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name)) and not _LIMIT_NAME.search(name)


def _forms(secret: str) -> set[str]:
    """How a secret may be written. Parts too short to be told from chance are left out."""
    raw = secret.encode("utf-8", "surrogatepass")
    forms = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    for quoted in (quote(raw), quote(raw, safe=""), quote_plus(raw)):
        forms |= {quoted, re.sub(r"%[0-9A-F]{2}", lambda match: match.group().lower(), quoted)}
    for offset in range(3):
        # Base64 turns three bytes into four characters: where a secret begins within three decides how it
        # looks. The characters that it shares with its neighbours are not known and stay.
        first = -(-offset * 8 // 6)
        last = (offset + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            forms.add(encode(b"\0" * offset + raw).decode()[first:last])
    return {form for form in forms if len(form) >= SHORTEST}
