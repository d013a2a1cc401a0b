"""How much memory a model takes, from its architecture.

P parameters, T trained ones, L layers, hidden width h, attention widths a (queries) and k (keys, values), MLP width f
of the experts that a token visits, vocabulary V, n = batch x length tokens in one forward pass, b bytes a number.

| part | bytes | source |
|---|---|---|
| weights | P·b; QLoRA: 0.516 a weight of a linear layer (4 bits and 8 + 32/256 bits for every 64) | Dettmers et al. 2023, §3 |
| gradients, optimiser | full: b and 2b a parameter; adapters: 4 and 8 | torch.optim.AdamW; PEFT keeps adapters in float32 |
| activations, a layer | n·b·(6h + 2a + 2k + 4f), without 2h where weights are frozen; attention keeps no n x n matrix | counted with torch's saved_tensors_hooks; Korthikanti et al. 2022 count GPT's the same way |
| of adapters | LoRA: n·4·7r; below float32 a float32 copy of each input; DoRA: twice the outputs of the linear layers | counted |
| checkpointed | n·b·h a layer, and one layer whole | Chen et al. 2016 |
| logits | n·V·(4 + 4 + 4), and b where b < 4; every token has a label | logits, their log-softmax, its gradient |
| KV cache | n·2·L·k·b | Pope et al. 2022 |
| allocator | adapters on CPU: twice the outputs of the linear layers, which glibc keeps when they are freed | measured |
| libraries | CPU: 0.5 GiB; GPU: 0.6 GiB of context | measured on CPU |
"""  # noqa: E501  # a table

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Method = Literal["inference", "full", "lora", "dora", "qlora"]
METHODS: tuple[Method, ...] = ("inference", "full", "lora", "dora", "qlora")
MIB = 2**20
FOUR_BITS = 0.516
LIBRARIES = {"cpu": 512 * MIB, "cuda": 614 * MIB}


@dataclass(frozen=True)
class Shape:
    """What of an architecture takes memory. Widths in numbers, sums over the linear modules of one layer."""

    parameters: int
    linear_parameters: int
    layers: int
    hidden: int
    queries: int
    keys: int
    mlp: int
    vocabulary: int
    inputs: int
    outputs: int
    linears: int

    def adapter_parameters(self, rank: int, dora: bool = False) -> int:
        """Trained by LoRA of `rank` on every linear module of every layer; DoRA adds a magnitude for each output."""
        return self.layers * (rank * (self.inputs + self.outputs) + (self.outputs if dora else 0))


@dataclass(frozen=True)
class Estimate:
    """Bytes of each part at the peak."""

    weights: int
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    logits: int = 0
    cache: int = 0
    allocator: int = 0
    libraries: int = 0

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def shape_of(model: Any) -> Shape:
    """`model` may be on the meta device. Raises ToolkitError where it has no transformer layers."""
    from torch import nn

    from ftagent.toolkit.models import decoder_layers

    text = model.config.get_text_config()
    _, layers = decoder_layers(model)
    linears = [module for layer in layers for module in layer.modules() if isinstance(module, nn.Linear)]
    heads = int(getattr(text, "num_attention_heads", 0) or 1)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    count = len(layers)
    inputs = sum(module.in_features for module in linears) // count
    outputs = sum(module.out_features for module in linears) // count
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        linear_parameters=sum(module.weight.numel() for module in linears),
        layers=count,
        hidden=int(text.hidden_size),
        queries=heads * width,
        keys=int(getattr(text, "num_key_value_heads", None) or heads) * width,
        mlp=_mlp_width(text),
        vocabulary=int(model.get_input_embeddings().weight.shape[0]),
        inputs=inputs,
        outputs=outputs,
        linears=len(linears) // count,
    )


def _mlp_width(text: Any) -> int:
    """Of what one token visits: of mixtures of experts, those that are chosen and those that all share."""
    dense = int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size)
    chosen = getattr(text, "num_experts_per_tok", None) or getattr(text, "top_k_experts", None)
    if not chosen:
        return dense
    expert = int(getattr(text, "moe_intermediate_size", None) or dense)
    return expert * (int(chosen) + int(getattr(text, "n_shared_experts", None) or 0))


def estimate(
    shape: Shape, method: Method, tokens: int, size: int, device: str, rank: int, checkpointing: bool = False
) -> Estimate:
    """The peak for `tokens` in one forward pass. `size`: bytes of a weight; `device`: cpu or cuda."""
    libraries = LIBRARIES[device]
    weights = shape.parameters * size
    if method == "qlora":
        weights += round(shape.linear_parameters * (FOUR_BITS - size))
    if method == "inference":
        return Estimate(
            weights,
            activations=tokens * _layer(shape, "full", size, rank),
            logits=shape.vocabulary * (size + 4),
            cache=tokens * 2 * shape.layers * shape.keys * size,
            libraries=libraries,
        )
    if method == "full":
        trained, state = shape.parameters * size, shape.parameters * size
    else:
        trained = state = shape.adapter_parameters(rank, method == "dora") * 4
        weights += trained
    layer = tokens * _layer(shape, method, size, rank)
    activations = shape.layers * layer
    if checkpointing:
        activations = shape.layers * tokens * shape.hidden * size + layer
    kept = method != "full" and device == "cpu"
    return Estimate(
        weights,
        gradients=trained,
        optimizer=2 * state,
        activations=activations,
        logits=tokens * shape.vocabulary * (12 + (size if size < 4 else 0)),
        allocator=2 * shape.layers * tokens * shape.outputs * size if kept else 0,
        libraries=libraries,
    )


def _layer(shape: Shape, method: Method, size: int, rank: int) -> int:
    """Bytes that one layer keeps of one token for the backward pass."""
    hidden = 6 if method == "full" else 4
    numbers = hidden * shape.hidden + 2 * shape.queries + 2 * shape.keys + 4 * shape.mlp
    kept = numbers * size
    if size < 4:
        # Norms compute in float32, whatever the weights are.
        kept += 2 * shape.hidden * 4
    if method == "full":
        return kept
    kept += shape.linears * rank * 4 + (shape.inputs * 4 if size < 4 else 0)
    return kept + (2 * shape.outputs * size if method == "dora" else 0)
