"""What DeepSpeed is told: train_args/<strategy>.json, over it the file of `deepspeed_config`, and our own keys."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.presets import PACKAGED, unknown_key

SECTION = "zero_optimization"
OFFLOADS = ("offload_optimizer", "offload_param")
KEYS = frozenset({
    "stage", "contiguous_gradients", "overlap_comm", "reduce_scatter", "reduce_bucket_size", "allgather_partitions",
    "allgather_bucket_size", "round_robin_gradients", "sub_group_size", *OFFLOADS,
    "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold", "stage3_model_persistence_threshold",
    "stage3_max_live_parameters", "stage3_max_reuse_distance", "stage3_module_granularity_threshold",
    "stage3_gather_16bit_weights_on_model_save",
})  # fmt: skip
"""Of its section on ZeRO, those that change where and when something is, not what is computed."""
OURS = {
    "optimizer": "learning_rate, weight_decay and adam_*", "scheduler": "schedule and warmup_ratio",
    "gradient_clipping": "max_grad_norm", "fp16": "dtype", "bf16": "dtype", "amp": "dtype", "torch_autocast": "dtype",
    "train_batch_size": "batch_size", "train_micro_batch_size_per_gpu": "batch_size and pack_tokens",
    "gradient_accumulation_steps": "gradient_accumulation", "steps_per_print": "log_steps",
    "tensorboard": "report_to", "wandb": "report_to",
}  # fmt: skip
"""Its keys → the keys of a training that say the same."""
AUTO = "auto"
"""What other trainers fill in; the same as leaving the key out."""


def uses_deepspeed(config: TrainConfig) -> bool:
    """Whether several processes would train by DeepSpeed."""
    return config.strategy.startswith("deepspeed-")


def check_deepspeed(config: TrainConfig, processes: int) -> None:
    """Raises ToolkitError, one line: a file that cannot be followed; the package is needed and missing."""
    if not uses_deepspeed(config):
        return
    read_settings(config)
    if processes > 1 and importlib.util.find_spec("deepspeed") is None:
        raise ToolkitError(
            f"strategy: {config.strategy} needs the package deepspeed; run `pip install 'ftagent[deepspeed]'`"
        )


def engine_settings(config: TrainConfig, autocast: bool) -> dict[str, Any]:
    """All that the engine is told. `autocast`: whether passes compute in bfloat16 over weights in float32."""
    return {
        SECTION: read_settings(config),
        "gradient_clipping": config.max_grad_norm,
        # As many passes as a step needs, each scaled by the objective; the engine's own counts are not used.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        # Torch's AdamW also updates what was moved to the main memory; DeepSpeed's own would have to be compiled.
        "zero_force_ds_cpu_optimizer": False,
        # No module whose gradients would be exchanged in bfloat16.
        "torch_autocast": {"enabled": autocast, "dtype": "bfloat16", "lower_precision_safe_modules": []},
    }


def read_settings(config: TrainConfig) -> dict[str, Any]:
    """Its section on ZeRO. Raises ToolkitError."""
    preset = _read(PACKAGED / f"{config.strategy}.json")[SECTION]
    if config.deepspeed_config is None:
        return dict(preset)
    return {**preset, **_checked(_read(config.deepspeed_config), config, preset["stage"])}


def _read(path: Path) -> dict[str, Any]:
    place = f"deepspeed_config: {path}"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ToolkitError(f"{place}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ToolkitError(f"{place}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ToolkitError(f"{place}: must be an object with {SECTION}, not {type(values).__name__}")
    return _without_auto(values)


def _without_auto(values: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in values.items() if value != AUTO}
    return {key: _without_auto(value) if isinstance(value, dict) else value for key, value in kept.items()}


def _checked(values: Mapping[str, Any], config: TrainConfig, stage: int) -> dict[str, Any]:
    place = f"deepspeed_config: {config.deepspeed_config}"
    for key, value in values.items():
        # {"enabled": "auto"} of other trainers.
        if key in OURS and value != {}:
            raise ToolkitError(f"{place}: {key}: give the training's own keys instead: {OURS[key]}")
        if key not in OURS and key != SECTION:
            raise ToolkitError(f"{place}: {key}: is not supported; {SECTION} is")
    section = values.get(SECTION, {})
    if not isinstance(section, dict):
        raise ToolkitError(f"{place}: {SECTION}: must be an object, not {type(section).__name__}")
    for key, value in section.items():
        where = f"{place}: {SECTION}.{key}"
        if key not in KEYS:
            raise ToolkitError(f"{where}: {unknown_key(key, KEYS)}")
        if key in OFFLOADS and not (isinstance(value, dict) and value.get("device") in ("cpu", "none")):
            raise ToolkitError(f"{where}: device must be 'cpu' or 'none', not {json.dumps(value)}")
    if section.get("stage", stage) != stage:
        raise ToolkitError(f"{place}: {SECTION}.stage: strategy {config.strategy} is {stage}, not {section['stage']}")
    return section
