"""Models and adapters, from safetensors alone."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ftagent.toolkit.config import Device, Dtype, TrainConfig
from ftagent.toolkit.errors import ToolkitError

ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def choose_device(device: Device) -> str:
    """`cpu` or `cuda`. Raises ToolkitError when cuda is asked for and absent."""
    import torch

    present = torch.cuda.is_available()
    if device == "cuda" and not present:
        raise ToolkitError("device: cuda was asked for, but torch sees no GPU")
    return "cuda" if present and device != "cpu" else "cpu"


def choose_dtype(dtype: Dtype, device: str) -> Any:
    """A torch dtype for `device`. Raises ToolkitError for float16 on a CPU."""
    import torch

    if dtype == "auto":
        return torch.bfloat16 if device == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if dtype == "float16" and device == "cpu":
        raise ToolkitError("dtype: float16 needs a GPU; a CPU computes in float32 or bfloat16")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]


def load_model(name: str, dtype: Dtype, device: Device, **extra: Any) -> tuple[Any, Any]:
    """(model in eval mode, tokenizer). `extra` goes to from_pretrained.

    Raises ToolkitError: nothing there, not safetensors, not readable, not all weights of the model.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    quiet: Any = logging
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    target = choose_device(device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        load: Any = AutoModelForCausalLM.from_pretrained
        model, loaded = load(
            name,
            dtype=choose_dtype(dtype, target),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **extra,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ToolkitError(f"model {name!r} cannot be loaded: {' '.join(str(error).split())[:400]}") from error
    if loaded["missing_keys"]:
        # Transformers makes up what is missing, at random.
        absent = sorted(loaded["missing_keys"])
        raise ToolkitError(
            f"model {name!r} cannot be loaded: its files lack {len(absent)} tensors, such as {absent[0]}"
        )
    _make_savable(model)
    # Quantised weights are on their device already and refuse to move.
    return (model if extra else model.to(torch.device(target))).eval(), tokenizer


def _make_savable(model: Any) -> None:
    """Transformers loads generation configs that it refuses to save: settings of sampling where nothing is sampled."""
    generation = model.generation_config
    if generation is None or generation.do_sample:
        return
    try:
        generation.validate(strict=True)
    except ValueError:
        for name in ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"):
            setattr(generation, name, None)


def decoder_layers(model: Any) -> tuple[str, list[Any]]:
    """(name of their list in `model`, transformer layers). ToolkitError for an unknown architecture."""
    from torch import nn

    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, list(module)
    raise ToolkitError(f"cannot find the {count} transformer layers of {type(model).__name__}")


def attention_kinds(model: Any) -> list[str]:
    """What transformers calls the kinds of `model`'s layers, each once: full_attention, sliding_attention, …"""
    text = model.config.get_text_config()
    alone = "full_attention" if getattr(text, "sliding_window", None) is None else "sliding_attention"
    return sorted(set(getattr(text, "layer_types", None) or [alone]))


def can_pack(model: Any, max_length: int) -> bool:
    """Whether rows may share a sequence: only attention mixes tokens, it reaches over a whole row, and what a position
    means does not depend on the other rows."""
    text = model.config.get_text_config()
    window = getattr(text, "sliding_window", None)
    rope = getattr(text, "rope_parameters", None) or {}
    stretched = isinstance(rope, dict) and rope.get("rope_type") in ("dynamic", "longrope")
    return _only_attends(model) and not _has_alibi(model) and not stretched and (window is None or window >= max_length)


def check_generation(model: Any) -> None:
    """Raises ToolkitError where `generate` would not compute what `model` is: something else than attention."""
    if _has_alibi(model):
        raise ToolkitError(f"{type(model).__name__} cannot generate here: its positions are biases (ALiBi)")
    if getattr(model, "_is_stateful", False) or not _only_attends(model):
        raise ToolkitError(
            f"{type(model).__name__} cannot generate here: its layers are {', '.join(attention_kinds(model))}"
            f"{' with a state' if getattr(model, '_is_stateful', False) else ''}; "
            "models whose layers are full_attention or sliding_attention can"
        )


def _has_alibi(model: Any) -> bool:
    """Such models make their own mask and take no other."""
    text = model.config.get_text_config()
    return text.model_type in ("bloom", "mpt") or bool(getattr(text, "alibi", False))


def _only_attends(model: Any) -> bool:
    return set(attention_kinds(model)) <= {"full_attention", "sliding_attention"}


def check_positions(model: Any, lengths: Collection[int], source: str) -> None:
    """Raises ToolkitError where a row of `lengths` tokens has more than `model` has positions for."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longer = [length for length in lengths if most is not None and length > most]
    if longer:
        raise ToolkitError(
            f"{source}: {len(longer)} of {len(lengths)} rows have more tokens than the model's {most} positions "
            f"(the longest {max(longer)}); set max_length: {most} to cut them"
        )


def add_adapter(model: Any, config: TrainConfig) -> Any:
    """`model` with LoRA adapters on the last `config.layers` layers, as a PEFT model; all else is frozen.

    Raises ToolkitError for target modules that the layers do not have, and for more layers than there are.
    """
    from peft import LoraConfig, TaskType, get_peft_model
    from torch import nn

    path, layers = decoder_layers(model)
    if config.layers > len(layers):
        raise ToolkitError(f"layers: {config.layers} is more than the model's {len(layers)}")
    present = sorted({
        name.rsplit(".", 1)[-1]
        for layer in layers for name, module in layer.named_modules() if isinstance(module, nn.Linear)
    })  # fmt: skip
    wanted = present if config.target_modules == "all-linear" else list(config.target_modules)
    absent = [name for name in wanted if name not in present]
    if absent or not wanted:
        raise ToolkitError(f"target_modules: {', '.join(absent) or 'none'}; the model has {', '.join(present)}")
    chosen = list(range(len(layers) - config.layers, len(layers))) if config.layers else None
    return get_peft_model(
        model,
        LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,  # type: ignore[arg-type]  # a float works
            lora_dropout=config.dropout,
            use_dora=config.method == "dora",
            use_rslora=config.rslora,
            target_modules=wanted,
            layers_to_transform=chosen,
            layers_pattern=path.rsplit(".", 1)[-1] if chosen else None,
            task_type=TaskType.CAUSAL_LM,
        ),
    )


def merge_adapter(model: Any, folder: Path) -> Any:
    """`model` with the adapter of `folder` added to its weights, in memory.

    Plain LoRA is merged here, because importing PEFT costs seconds; any other adapter goes through PEFT.
    Raises ToolkitError: no adapter, weights that are not safetensors, an adapter of another model.
    """
    settings, weights = _read_adapter(folder)
    _untie(model, weights)
    if not _is_plain(settings, weights):
        return _merge_with_peft(model, folder)
    modules = dict(model.named_modules())
    scale = settings["lora_alpha"] / settings["r"]
    for key, down in weights.items():
        if not key.endswith(".lora_A.weight"):
            continue
        name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        up = weights[key.replace(".lora_A.", ".lora_B.")]
        module = modules.get(name)
        if module is None or module.weight.shape != (up.shape[0], down.shape[1]):
            raise ToolkitError(f"adapter {str(folder)!r} is of another model: {name} does not fit")
        delta = (up.float() @ down.float()) * scale
        module.weight.data += delta.to(module.weight)
    return model


def _untie(model: Any, tensors: Collection[str]) -> None:
    """An adapter that changes one of two tied matrices leaves the other as it is; then both are saved.

    `tensors`: names of those of the adapter.
    """
    from torch import nn

    output = model.get_output_embeddings()
    text = model.config.get_text_config()
    if output is None or not getattr(text, "tie_word_embeddings", False):
        return
    tied = (model.get_input_embeddings(), output)
    names = [name for name, module in model.named_modules() if any(module is one for one in tied)]
    if any(f".{name}." in tensor for name in names for tensor in tensors):
        output.weight = nn.Parameter(output.weight.detach().clone(), requires_grad=False)
        text.tie_word_embeddings = model.config.tie_word_embeddings = False
        model._tied_weights_keys = None
        model.all_tied_weights_keys = {}


def _read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ToolkitError(f"adapter {str(folder)!r}: has no {ADAPTER_WEIGHTS}; other formats are not loaded")
    try:
        settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        return settings, load_file(folder / ADAPTER_WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise ToolkitError(f"adapter {str(folder)!r} cannot be read: {error}") from error


def _is_plain(settings: dict[str, Any], weights: dict[str, Any]) -> bool:
    """Whether W + alpha/r · B·A over linear layers is all that the adapter is."""
    plain = {"peft_type": "LORA", "bias": "none"}
    empty = (
        "use_dora", "use_rslora", "fan_in_fan_out", "lora_bias", "rank_pattern", "alpha_pattern",
        "modules_to_save",
        "trainable_token_indices", "alora_invocation_tokens", "target_parameters", "layer_replication",
    )  # fmt: skip
    return (
        all(settings.get(key, value) == value for key, value in plain.items())
        and not any(settings.get(key) for key in empty)
        and all(key.endswith((".lora_A.weight", ".lora_B.weight")) for key in weights)
    )


def _merge_with_peft(model: Any, folder: Path) -> Any:
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(folder)).merge_and_unload().eval()
    except (ValueError, RuntimeError, KeyError) as error:
        raise ToolkitError(f"adapter {str(folder)!r} does not fit: {' '.join(str(error).split())[:300]}") from error
