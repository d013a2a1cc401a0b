"""A model that is being trained: loaded, with its adapters, its optimiser, and how it is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftagent.toolkit.config import TrainConfig
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.models import add_adapter, load_model
from ftagent.toolkit.precision import Precision, check_qlora, choose_precision, quantisation
from ftagent.toolkit.result import write_model


@dataclass
class Learner:
    """`model` is what is written; `inner` what computes: under a PEFT model the base model, which holds the adapters
    too, and whose forward takes every argument. Before `prepare` both are the model as it was loaded."""

    model: Any
    inner: Any
    tokenizer: Any
    precision: Precision

    def prepare(self, config: TrainConfig) -> None:
        """Add what `config`'s method trains. Raises ToolkitError for adapters that the model has no place for."""
        if config.method == "full":
            self.inner.requires_grad_(True)
        else:
            if config.method == "qlora":
                import peft

                ready: Any = peft.prepare_model_for_kbit_training
                self.model = ready(self.model, use_gradient_checkpointing=False)
            self.model = add_adapter(self.model, config)
            self.inner = self.model.get_base_model()
        if config.gradient_checkpointing:
            _check_checkpointing(self.inner)
            # The re-entrant kind loses the gradients of adapters over frozen embeddings.
            self.inner.activation_checkpointing_enable({"use_reentrant": False})

    def optimizer(self, config: TrainConfig) -> Any:
        """AdamW over what is trained."""
        import torch

        return torch.optim.AdamW(
            [parameter for parameter in self.inner.parameters() if parameter.requires_grad],
            lr=config.learning_rate,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def write(self, folder: Path) -> None:
        """Into a checkpoint: an adapter, or weights with what is needed to load them."""
        full = self.model is self.inner
        write_model(self.model, folder, self.tokenizer if full else None, self.precision.saved if full else None)

    def write_with_tokenizer(self, folder: Path) -> None:
        """As the result."""
        write_model(self.model, folder, self.tokenizer, self.precision.saved if self.model is self.inner else None)


def _check_checkpointing(model: Any) -> None:
    if not model.supports_gradient_checkpointing:
        raise ToolkitError(f"gradient_checkpointing: {type(model).__name__} does not support it; leave it out")


def load_learner(config: TrainConfig) -> Learner:
    """The model of `config` before adapters. Raises ToolkitError: it cannot be loaded, or the machine cannot do it."""
    check_qlora(config)
    precision = choose_precision(config)
    extra = {"quantization_config": quantisation(precision.saved)} if config.method == "qlora" else {}
    model, tokenizer = load_model(config.model_path, precision.weights, config.device, **extra)
    return Learner(model, model, tokenizer, precision)
