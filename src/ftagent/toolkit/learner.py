"""A model that is being trained: loaded, with its adapters, its optimiser, and how it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ftagent.toolkit.checkpoint import Write
from ftagent.toolkit.config import Device, TrainConfig
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.models import add_adapter, load_model
from ftagent.toolkit.optimizer import Optimizer, TorchOptimizer, adamw
from ftagent.toolkit.precision import Precision, check_qlora, choose_precision, quantisation
from ftagent.toolkit.result import write_model
from ftagent.toolkit.sharding import device_of_processes, whole_weights
from ftagent.toolkit.share import Share
from ftagent.toolkit.zero import Zero, start_zero
from ftagent.toolkit.zero_settings import engine_settings, uses_deepspeed


@dataclass
class Learner:
    """`model` is what is written; `inner` what computes: under a PEFT model the base model, which holds the adapters
    too, and whose forward takes every argument. Before `prepare` both are the model as it was loaded. `zero`: what
    DeepSpeed put around it."""

    model: Any
    inner: Any
    tokenizer: Any
    precision: Precision
    sharded: bool = False
    zero: Zero | None = None

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

    def shard(self, config: TrainConfig) -> None:
        """Leave this process its part of what `config`'s strategy splits. Raises ToolkitError where it cannot be."""
        from ftagent.toolkit.kernels.select import leave_head, speed_up
        from ftagent.toolkit.sharding import shard

        # It compares what the whole model computes, and reads weights beside their modules, where stage 3 has none.
        if device_of_processes() == "cpu" and config.strategy != "deepspeed-zero3":
            speed_up(self.inner)
        if uses_deepspeed(config):
            settings = engine_settings(config, self.precision.autocasts)
            self.zero = start_zero(self.inner, adamw(self.inner, config), settings)
        else:
            shard(self.inner)
        leave_head(self.inner)
        self.sharded = True

    @property
    def passes(self) -> Any:
        """What forward passes go through: `inner`, or what stands for it."""
        return self.inner if self.zero is None else self.zero.passes

    def optimizer(self, config: TrainConfig, share: Share) -> Optimizer:
        """Over what is trained."""
        return TorchOptimizer(adamw(self.inner, config), share) if self.zero is None else self.zero.optimizer

    def writer(self, wanted: bool, result: bool = False) -> Write:
        """What writes an adapter, or weights with what is needed to load them, into a checkpoint or as the result.

        Where the model is shared every process calls it; only one that said it `wanted` may write.
        """
        full = self.model is self.inner
        weights = whole_weights(self.model, not full, wanted) if self.sharded else None
        tokenizer = self.tokenizer if full or result else None
        return lambda folder: write_model(
            self.model, folder, tokenizer, self.precision.saved if full else None, weights
        )


def _check_checkpointing(model: Any) -> None:
    if not model.supports_gradient_checkpointing:
        raise ToolkitError(f"gradient_checkpointing: {type(model).__name__} does not support it; leave it out")


def load_learner(config: TrainConfig, share: Share) -> Learner:
    """The model of `config` before adapters, on its device, or on the CPU where it is to be shared.

    Raises ToolkitError: it cannot be loaded, or the machine cannot do it.
    """
    check_qlora(config)
    precision = choose_precision(config)
    extra = {"quantization_config": quantisation(precision.saved)} if config.method == "qlora" else {}
    # A model that has to be shared may not fit one GPU.
    device: Device = "cpu" if share.sharded else config.device
    model, tokenizer = load_model(config.model_path, precision.weights, device, **extra)
    return Learner(model, model, tokenizer, precision)
