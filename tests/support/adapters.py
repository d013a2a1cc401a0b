"""A small base model, and adapters that change what a model says, made by PEFT without training."""

import warnings
from pathlib import Path
from typing import Any


def make_base(folder: Path) -> Path:
    """A Llama of two layers with random weights, whose tokens are bytes."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    config = LlamaConfig(vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, bos_token_id=None, eos_token_id=256)  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>").save_pretrained(folder)
    return folder


def make_adapter(base: Path, folder: Path, scale: float = 0.05, **settings: Any) -> Path:
    """LoRA of rank 4 on every linear layer of `base`, with random weights; `settings` as LoraConfig names them."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    values: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    torch.manual_seed(3)
    with warnings.catch_warnings():
        # About its own insides, and that tied weights need care, which is what the tests are about.
        warnings.simplefilter("ignore")
        adapted = get_peft_model(model, LoraConfig(**{**values, **settings}))
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "lora_embedding_A" in name:
                parameter.data.normal_(0, scale)
        adapted.save_pretrained(str(folder))
    return folder
