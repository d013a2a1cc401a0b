"""Whether tokenizer, chat template and generation config load and belong to the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftagent.toolkit.checking.findings import Finding, fault, listed, ok, one_line, warning

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "vocab.txt",
              "tekken.json", "*.tiktoken", "tiktoken.model")  # fmt: skip
PROBE = "The quick brown fox jumps over 13 lazy dogs."
TURNS = [
    {"role": "user", "content": "Which colour has the sky?"},
    {"role": "assistant", "content": "It is blue."},
    {"role": "user", "content": "And grass?"},
]
SYSTEM = {"role": "system", "content": "You answer in one word."}
UNUSED_SHARE = 0.05
"""More unused embedding rows than this are no padding: the rows of known models stay below 2 %."""


def check_tokenizer(folder: Path, model: Any) -> tuple[list[Finding], Any]:
    """Findings, and the tokenizer or None. `model`: of `check_architecture`, None where there is none."""
    if not any(any(folder.glob(name)) for name in TOKENIZERS):
        return [fault("tokenizer", "there is no tokenizer", "tokenizer.json of the model")], None
    try:
        tokenizer = load_tokenizer(folder)
        round_trip = tokenizer.decode(tokenizer.encode(PROBE, add_special_tokens=False))
    except Exception as error:  # noqa: BLE001  # each kind of tokenizer fails in its own way
        return [fault("tokenizer", f"does not load: {one_line(error)}", "the tokenizer files of the model")], None
    findings = [ok("tokenizer", f"{type(tokenizer).__name__}, {len(tokenizer)} tokens")]
    if "".join(round_trip.split()) != "".join(PROBE.split()):
        findings = [warning("tokenizer", f"{PROBE!r} comes back as {round_trip!r}", "text that survives the tokenizer")]
    if model is not None:
        findings += _check_vocabulary(tokenizer, model)
    return findings + _check_special(tokenizer, model) + _check_template(tokenizer), tokenizer


def check_adapter_vocabulary(folder: Path, model: Any) -> list[Finding]:
    """The tokenizer beside an adapter, where there is one: its tokens must be among the embeddings of `model`."""
    if not any(any(folder.glob(name)) for name in TOKENIZERS):
        return []
    try:
        found = _check_vocabulary(load_tokenizer(folder), model)
    except Exception as error:  # noqa: BLE001  # each kind of tokenizer fails in its own way
        found = [fault("tokenizer", f"does not load: {one_line(error)}", "the tokenizer of the base model")]
    return [Finding(f"adapter {finding.check}", finding.status, finding.text, finding.right) for finding in found]


def load_tokenizer(folder: Path) -> Any:
    """From local files alone."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def _check_vocabulary(tokenizer: Any, model: Any) -> list[Finding]:
    from ftagent.toolkit.checking.architecture import embedding_rows

    rows = embedding_rows(model)
    vocabulary = tokenizer.get_vocab()
    ids = set(vocabulary.values())
    beyond = [token for token, number in vocabulary.items() if number >= rows]
    if beyond:
        text = f"{len(beyond)} tokens have ids beyond the {rows} embedding rows: {listed(beyond)}"
        return [fault("vocabulary", text, "the model's own tokenizer, or embeddings resized to it")]
    doubled = len(vocabulary) - len(ids)
    if doubled:
        return [fault("vocabulary", f"{doubled} tokens share an id with another", "one id for each token")]
    unused = rows - len(ids)
    if unused > UNUSED_SHARE * rows:
        text = f"{unused} of {rows} embedding rows have no token: this may be the tokenizer of another model"
        return [warning("vocabulary", text, "the model's own tokenizer")]
    return [ok("vocabulary", f"{len(ids)} tokens, {rows} embedding rows" + (f", {unused} unused" if unused else ""))]


def _check_special(tokenizer: Any, model: Any) -> list[Finding]:
    if tokenizer.eos_token_id is None:
        return [fault("special tokens", "there is no end-of-sequence token", "eos_token in tokenizer_config.json")]
    named = {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "pad_token")}
    text = ", ".join(f"{name.removesuffix('_token')} {value!r}" for name, value in named.items() if value)
    stops = _as_set(getattr(model.config.get_text_config(), "eos_token_id", None)) if model is not None else set()
    stops |= _as_set(getattr(model.generation_config, "eos_token_id", None)) if model is not None else set()
    if stops and tokenizer.eos_token_id not in stops:
        told = f"{text}: eos is id {tokenizer.eos_token_id}, config.json ends at {sorted(stops)}"
        return [warning("special tokens", told, "the same end token in both")]
    return [ok("special tokens", text)]


def _as_set(value: Any) -> set[int]:
    return set() if value is None else set(value) if isinstance(value, list | tuple) else {int(value)}


def _check_template(tokenizer: Any) -> list[Finding]:
    if not tokenizer.chat_template:
        return [warning("chat template", "there is none", "chat_template.jinja, for a model that is to chat")]
    try:
        text = str(tokenizer.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # noqa: BLE001  # a template is a program of somebody else
        return [fault("chat template", f"does not render: {one_line(error)}", "the template of the model")]
    lost = [turn["content"] for turn in TURNS if turn["content"] not in text]
    if lost:
        return [fault("chat template", f"loses what was said: {listed(lost)}", "the template of the model")]
    try:
        text = str(tokenizer.apply_chat_template([SYSTEM, *TURNS], tokenize=False, add_generation_prompt=True))
    except Exception as error:  # noqa: BLE001  # a template is a program of somebody else
        return [warning("chat template", f"refuses a system prompt: {one_line(error)}", "conversations without one")]
    if SYSTEM["content"] not in text:
        return [warning("chat template", "leaves a system prompt out", "conversations without one")]
    return [ok("chat template", "renders a conversation, with and without system prompt")]


def check_generation(folder: Path, rows: int | None) -> list[Finding]:
    """generation_config.json: whether it loads, and whether its ids are among the `rows` embedding rows."""
    from transformers import GenerationConfig

    path = folder / "generation_config.json"
    if not path.is_file():
        return [ok("generation config", "none: the defaults of config.json")]
    try:
        json.loads(path.read_text(encoding="utf-8"))
        config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # noqa: BLE001  # transformers names no errors of its validation
        return [fault("generation config", f"does not load: {one_line(error)}", "delete it, or download it again")]
    ids = _as_set(config.eos_token_id) | _as_set(config.bos_token_id) | _as_set(config.pad_token_id)
    beyond = sorted(number for number in ids if rows is not None and number >= rows)
    if beyond:
        return [fault("generation config", f"names the tokens {beyond}, beyond the embedding", "the model's own ids")]
    return [ok("generation config", "loads")]
