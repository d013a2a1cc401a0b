"""A model with adapters that change what it computes."""

from pathlib import Path
from typing import Any

from ftagent.toolkit.config import TrainConfig, validate_config
from ftagent.toolkit.models import add_adapter, load_model


def adapted(tiny: Path) -> tuple[Any, Any]:
    """The tiny model with adapters that do something, and its tokenizer."""
    import torch

    values = {"model_path": str(tiny), "dataset_path": "d", "save_model_path": "o", "epochs": 1, "rank": 4}
    model, tokenizer = load_model(str(tiny), "float32", "cpu")
    torch.manual_seed(1)
    model = add_adapter(model, validate_config(values, TrainConfig, "train.yaml")).get_base_model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    return model.train(), tokenizer


def gradients(model: Any) -> dict[str, Any]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found
