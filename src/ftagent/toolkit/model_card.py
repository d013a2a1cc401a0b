"""The README.md of a merged model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from ftagent.toolkit.proof import TOLERANCES, Proof

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def merged_card(base: Path, adapter: Path, sources: Mapping[str, Mapping[str, str]], proof: Proof) -> str:
    """Markdown with the hub's front matter. `sources`: sha256 of each file, of base and adapter."""
    licence = base_licence(base)
    name = base_name(base, adapter)
    front = ["library_name: transformers", "pipeline_tag: text-generation"]
    front += [f"base_model: {name}"] if HUB_ID.fullmatch(name) else []
    front += [f"license: {licence}"] if licence else []
    limit = TOLERANCES[proof.dtype]
    allowed = limit.difference * proof.largest_logit
    hashes = [f"| {kind} | {file} | `{digest}` |" for kind, files in sources.items() for file, digest in files.items()]
    lines = [
        "---",
        *front,
        "---",
        "",
        f"# {Path(name).name} with an adapter merged",
        "",
        f"Base model: {name}. Adapter: {adapter.name}. Weights are {proof.dtype}.",
        "",
        "## The merged model gives the adapter's logits",
        "",
        f"On {proof.tokens} tokens of probe texts, this model as it was loaded back from its files, against the base",
        "model in float32 with the adapter beside it:",
        "",
        "| | measured | allowed |",
        "|---|---|---|",
        f"| largest difference of a logit | {proof.max_difference:.3g} | {allowed:.3g} |",
        f"| mean KL, nats a token | {proof.kl:.3g} | {limit.kl:g} |",
        f"| equal top tokens | {proof.agreement:.1%} | {limit.agreement:.0%} |",
        "",
        f"The adapter itself moves the base model by a mean KL of {proof.adapter_kl:.3g} nats a token.",
        *(["", f"Note: {proof.note}."] if proof.note else []),
        "",
        "## Sources",
        "",
        "| of | file | sha256 |",
        "|---|---|---|",
        *hashes,
        "",
        "## Licence",
        "",
        f"The licence of the base model applies: {licence or 'unknown here, see its page'}. What the adapter was",
        "trained on may add conditions.",
    ]
    return "\n".join(lines) + "\n"


def base_name(base: Path, adapter: Path) -> str:
    """The hub id of `base` where its place in the hub's cache or the adapter's settings tell it, else its folder."""
    for part in base.resolve().parts:
        if part.startswith("models--") and part.count("--") == 2:
            return part.removeprefix("models--").replace("--", "/")
    try:
        named = str(
            json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return base.resolve().name
    return named if HUB_ID.fullmatch(named) and not Path(named).exists() else base.resolve().name


def base_licence(base: Path) -> str:
    """As the front matter of the base's card names it; "" where it does not."""
    try:
        text = (base / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    front = text.split("---")[1] if text.startswith("---") and text.count("---") > 1 else ""
    found = re.search(r"^license:\s*([\w.+-]+)\s*$", front, re.MULTILINE)
    return found[1] if found else ""
