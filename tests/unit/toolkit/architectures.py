"""Small models of several architectures with random weights, made from their configs."""

from __future__ import annotations

from typing import Any

SIZES: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "max_position_embeddings": 512,
}  # fmt: skip
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "mistral": ("MistralConfig", {"sliding_window": 64}),
    "phi3": ("Phi3Config", {}),
    "gemma2": ("Gemma2Config", {"head_dim": 12, "sliding_window": 64}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 12, "sliding_window": 64}),
}


def small_model(name: str, attention: str = "sdpa", **values: Any) -> Any:
    """A model of architecture `name` in float32, in eval mode; the same weights each time."""
    import torch
    import transformers

    kind, more = ARCHITECTURES[name]
    config = getattr(transformers, kind)(**{**SIZES, **more, **values})
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        # Larger weights than usual: at random initialisation every next token would be about equally likely.
        for parameter in model.parameters():
            parameter.normal_(0, 0.15) if parameter.dim() > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    return model
