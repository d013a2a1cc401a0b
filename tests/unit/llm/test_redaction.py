"""No form of a secret is left, ordinary text is left alone, and it is fast."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftagent.llm.redaction import MARK, Redactor, secrets_of
from ftagent.llm.types import ChatReply
from ftagent.settings.loading import load

CANARY = 'sk-Canary+/"\\ü 42=='


@pytest.mark.parametrize(
    "written",
    [
        CANARY,
        json.dumps({"key": CANARY}),
        json.dumps({"key": CANARY}, ensure_ascii=False),
        repr([CANARY]),
        f"https://host/?key={quote(CANARY)}&x=1",
        f"https://host/?key={quote(CANARY, safe='')}&x=1",
        f"https://host/?key={quote_plus(CANARY)}&x=1",
        f"https://host/?key={re.sub('%..', lambda found: found.group().lower(), quote(CANARY))}",
    ],
)
def test_written_forms_are_redacted(written: str) -> None:
    redacted = Redactor([CANARY]).redact(written)
    assert MARK in redacted
    assert "Canary" not in redacted
    assert "42" not in redacted


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@settings(deadline=None, max_examples=50)
@given(before=st.binary(max_size=7), after=st.binary(max_size=7))
def test_base64_is_redacted_wherever_the_secret_lies(encode: object, before: bytes, after: bytes) -> None:
    assert callable(encode)
    secret = "sk-0123456789?>abcdefghij"
    text = encode(before + secret.encode() + after).decode()
    redacted = Redactor([secret]).redact(f"Authorization: Basic {text}")
    assert MARK in redacted
    # At most the two characters that the secret shares with its neighbours are left of it.
    left = redacted.removeprefix("Authorization: Basic ").split(MARK)
    assert len(left[0]) <= len(encode(before)) + 1
    assert len(left[1]) <= len(encode(after)) + 4


def test_a_secret_that_contains_another_goes_whole() -> None:
    redactor = Redactor(["abcdef", "abcdefghijkl"])
    assert redactor.redact("abcdefghijkl abcdef abcde") == f"{MARK} {MARK} abcde"


def test_short_secrets_are_left_alone_and_counted() -> None:
    redactor = Redactor(["", "  ", "12345", "123456\n"])
    assert redactor.too_short == 1
    assert redactor.redact("12345 123456") == f"12345 {MARK}"


@settings(deadline=None)
@given(st.text(alphabet="never[redacted]%2\\x0ü", max_size=100))
def test_other_text_stays(text: str) -> None:
    assert Redactor(["\x01never-in-any-text-of-this-test\x02"]).redact(text) == text


def test_every_text_of_a_document_and_of_a_reply_is_redacted() -> None:
    redactor = Redactor(["canary-1"])
    document = {"canary-1": ["a canary-1 b", {"deep": ("canary-1", 3, None, True)}]}
    assert "canary-1" not in json.dumps(redactor.document(document))
    assert redactor.document({"a": [1, None]}) == {"a": [1, None]}
    reply = redactor.reply(ChatReply("canary-1", "canary-1", "stop", "canary-1"))
    assert (reply.content, reply.reasoning, reply.refusal) == (MARK, MARK, MARK)


def test_five_megabytes_cost_little() -> None:
    text = "the quick brown fox 0123456789 " * 170_000
    redactor = Redactor([f"sk-secret-number-{number:04d}" for number in range(10)])
    started = time.process_time()
    assert redactor.redact(text) == text
    assert time.process_time() - started < 2.0


def test_every_secret_of_the_settings_is_known(tmp_path: Path) -> None:
    canaries = [f"canary-{number:02d}" for number in range(1, 11)] + ["canary-0123456789"]
    (tmp_path / ".env").write_text(f"OPENROUTER_API_KEY={canaries[0]}\n")
    environ = {
        "OPENAI_API_KEY": canaries[1], "HF_TOKEN": canaries[2], "FT_JUDGE_API_KEY": canaries[3],
        "OPENAI_API_BASE": f"http://user:{canaries[4]}@host/v1", "ANTHROPIC_API_KEY": canaries[5],
        "FT_SYNC_URL": f"https://{canaries[6]}@host", "AWS_SECRET_ACCESS_KEY": canaries[9],
        "LITELLM_CHAT_MODEL_MAP": json.dumps({
            "code": {
                "model": "provider/a-model-of-20260101", "api_key": canaries[7], "max_tokens": "100000",
                "extra_headers": {
                    "Authorization": f"Bearer {canaries[8]}", "x-id": canaries[10], "accept": "application/json"
                },
            }
        }),
    }  # fmt: skip
    secrets = secrets_of(load(None, environ, tmp_path))
    redactor = Redactor(secrets)
    assert [redactor.redact(canary) for canary in canaries] == [MARK] * len(canaries)
    open_text = "http://host/v1 openai Bearer application/json 100000 provider/a-model-of-20260101"
    assert redactor.redact(open_text) == open_text
