"""Keeping secrets out of prompts, replies, error messages and logs."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote

from ftagent.settings.loading import is_secret

if TYPE_CHECKING:
    from ftagent.llm.types import ChatReply
    from ftagent.settings import Settings

MARK = "[redacted]"
_RANDOM = 16
"""Characters with which a header with digits is taken for a key."""
SHORTEST = 6
"""Characters. Shorter secrets would be found by chance in ordinary text, and are left alone."""
_NO_SECRET = re.compile(
    r"_(API_BASE|BASE_URL|API_VERSION|REGION_NAME|PROFILE_NAME|LOCATION|PROJECT|URL|PROJECT_ID)$"
    r"|^GOOGLE_APPLICATION_CREDENTIALS$"  # a file
)
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

    def clean(self, text: str) -> str:
        """`text` as it may be sent and kept: without secrets, and without the lone surrogates that a model's JSON may
        hold and no file can."""
        return self.redact(text.encode("utf-8", "replace").decode())

    def reply(self, reply: ChatReply) -> ChatReply:
        """The same for every text of a reply."""
        return replace(
            reply,
            content=self.clean(reply.content),
            reasoning=self.clean(reply.reasoning),
            refusal=self.clean(reply.refusal),
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


def _in_options(value: Any, name: str = "", header: bool = False) -> Iterator[str]:
    """Texts whose name or look tells of a secret, and passwords in addresses."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _in_options(item, str(key), header or "header" in name.lower())
    elif isinstance(value, list):
        for item in value:
            yield from _in_options(item, name, header)
    elif isinstance(value, str):
        # Most headers are words such as `application/json`, which prompts need.
        if is_secret(name) or (header and len(value) >= _RANDOM and any(map(str.isdigit, value))):
            # `Authorization: Bearer …`: the scheme is no part of the secret.
            yield from (value, *value.split()[1:])
        yield from _in_address(value)


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
