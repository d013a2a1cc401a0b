"""LiteLLM as a library of this process: quiet, without network of its own, and without reading anybody's `.env`."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FLAGS = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no price list from the network at import
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",  # nor header names at the first call
    "LITELLM_MODE": "PRODUCTION",  # in its other mode it loads the nearest .env, keys included, into os.environ
    "LITELLM_DISABLE_BUG_REPORT_LINK": "true",  # in texts of errors
}
"""Variables that LiteLLM reads at import. They hold no secrets."""
KNOWN_WARNINGS = (
    "Pydantic serializer warnings",
    r"Accessing the '.*' attribute on the instance is deprecated",
    r".*is using the `ReadOnly` qualifier",
    ".*conflict with protected namespace",
)
"""What LiteLLM's own objects make pydantic warn about; nobody who runs ftagent can act on it."""


def load_litellm() -> Any:
    """The module, imported and configured at the first call (seconds; a few MB of price list)."""
    loaded = sys.modules.get("litellm")
    if loaded is not None and getattr(loaded, "disable_hf_tokenizer_download", None):
        return loaded
    os.environ.update(FLAGS)
    with known_warnings_ignored():
        litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    # For embeddings it takes a request for no retries as one for its default.
    litellm.num_retries, litellm.DEFAULT_MAX_RETRIES = None, 0
    # Some model names would make it fetch a tokenizer from a hub to count tokens.
    litellm.disable_hf_tokenizer_download = True
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return litellm


class _Ignored:
    """How many are inside `known_warnings_ignored`, and the filters that stand for them."""

    lock = threading.Lock()
    inside = 0
    filters: tuple[Any, ...] = ()


@contextmanager
def known_warnings_ignored() -> Iterator[None]:
    """Around calls into LiteLLM. Calls overlap in one event loop, where `warnings.catch_warnings` would restore the
    wrong filters: the first one in adds ours, the last one out takes exactly those away."""
    with _Ignored.lock:
        _Ignored.inside += 1
        if _Ignored.inside == 1:
            before = list(warnings.filters)
            for message in KNOWN_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            _Ignored.filters = tuple(entry for entry in warnings.filters if entry not in before)
    try:
        yield
    finally:
        with _Ignored.lock:
            _Ignored.inside -= 1
            if _Ignored.inside == 0:
                kept = [entry for entry in warnings.filters if entry not in _Ignored.filters]
                warnings.filters[:] = kept  # type: ignore[index]
