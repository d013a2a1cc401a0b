"""Every fast way computes what the plain way computes: values and gradients."""

from __future__ import annotations

import platform
import random
import resource
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.batches import Pack, split_into_packs
from ftagent.toolkit.tokens import IGNORED, Row

from .architectures import ARCHITECTURES, small_model

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def rows(shared: int, lengths: tuple[int, ...] = (9, 14, 7, 21)) -> list[Row]:
    """Rows with a common beginning of `shared` tokens; about half of the others are labels."""
    generator = random.Random(1)
    beginning = [generator.randrange(3, 300) for _ in range(shared)]
    found = []
    for number, length in enumerate(lengths):
        own = [10 + number, *(generator.randrange(3, 300) for _ in range(length - 1))]
        labels = [IGNORED, *(token if generator.random() < 0.5 else IGNORED for token in own[1:-1]), own[-1]]
        found.append(Row((*beginning, *own), (*[IGNORED] * shared, *labels), False))
    return found


def lora(model: Any, **values: Any) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    options = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **values}
    torch.manual_seed(3)
    adapted = get_peft_model(model, LoraConfig(**options))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    return adapted.get_base_model()


def losses_and_gradients(model: Any, packs: list[Pack], upstream: bool = False) -> tuple[Any, dict[str, Any]]:
    """Log-probabilities of all labels; gradients of their sum, or of a sum with random weights."""
    import torch

    from ftagent.toolkit.losses import target_logprobs

    model.zero_grad()
    generator = torch.Generator().manual_seed(2)
    values = []
    for pack in packs:
        found = target_logprobs(model, pack)
        weights = torch.randn(found.shape, generator=generator) if upstream else torch.ones_like(found)
        if found.requires_grad:
            (found * weights).sum().backward()
        values.append(found.detach())
    return torch.cat(values), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(found: tuple[Any, dict[str, Any]], expected: tuple[Any, dict[str, Any]]) -> None:
    import torch

    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-4)
    assert found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        scale = float(value.abs().max())
        torch.testing.assert_close(found[1][name], value, rtol=1e-3, atol=1e-4 * scale + 1e-6, msg=name)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_training_is_the_same_the_fast_way(name: str, method: str) -> None:
    from ftagent.toolkit.kernels.select import speed_up

    # Gemma 2 caps its attention scores, which torch's attention cannot do: its plain way is eager.
    attention = "eager" if name == "gemma2" else "sdpa"
    singly = [pack for row in rows(5) for pack in split_into_packs([row], 0)]
    for upstream in (False, True):
        models = [small_model(name, attention) for _ in range(2)]
        plain, fast = [lora(model) if method == "lora" else model.requires_grad_(True) for model in models]
        chosen = speed_up(fast)
        assert chosen.head is (name != "gemma2")
        assert chosen.rows is (name != "gemma2")
        assert sum("forward" in vars(module) for module in fast.modules()) > 12
        # The log-probabilities come in the order of rows either way: the first label follows the common beginning.
        assert_equal(
            losses_and_gradients(fast, split_into_packs(rows(5), 2048), upstream),
            losses_and_gradients(plain, split_into_packs(rows(5), 2048), upstream),
        )
        assert_equal(losses_and_gradients(fast, singly, upstream), losses_and_gradients(plain, singly, upstream))


@pytest.mark.parametrize("shared", [0, 3, 40])
def test_rows_attend_to_themselves_and_the_beginning(shared: int) -> None:
    """40 is longer than any row, where the queries of the beginning are not computed again."""
    from ftagent.toolkit.kernels.select import speed_up

    plain, fast = small_model("llama").requires_grad_(True), small_model("llama").requires_grad_(True)
    speed_up(fast)
    singly = [pack for row in rows(shared) for pack in split_into_packs([row], 0)]
    assert_equal(losses_and_gradients(fast, split_into_packs(rows(shared), 2048)), losses_and_gradients(plain, singly))


@pytest.mark.parametrize("name", ["gemma3", "mistral"])
def test_a_row_longer_than_the_window_sees_the_window(name: str) -> None:
    from ftagent.toolkit.kernels.select import speed_up

    plain, fast = (small_model(name, sliding_window=8).requires_grad_(True) for _ in range(2))
    assert speed_up(fast).rows
    long = [split_into_packs([row], 0)[0] for row in rows(0, (30, 11))]
    assert_equal(losses_and_gradients(fast, long), losses_and_gradients(plain, long))


@pytest.mark.parametrize("values", [{"use_dora": True}, {"use_rslora": True}, {"lora_bias": True}, {"r": 48}])
def test_other_adapters_are_computed_as_peft_does(values: dict[str, Any]) -> None:
    from ftagent.toolkit.kernels.select import speed_up

    options = {"target_modules": ["q_proj", "v_proj"], **values}
    plain, fast = (lora(small_model("qwen2"), **options) for _ in range(2))
    speed_up(fast)
    packs = split_into_packs(rows(5), 2048)
    assert_equal(losses_and_gradients(fast, packs), losses_and_gradients(plain, packs))


def test_dropout_reaches_the_adapter_alone_and_repeats_with_the_seed() -> None:
    import torch

    from ftagent.toolkit.kernels.select import speed_up

    plain, fast = (lora(small_model("llama"), lora_dropout=0.4).train() for _ in range(2))
    speed_up(fast)
    packs = split_into_packs(rows(5), 2048)
    torch.manual_seed(4)
    found = losses_and_gradients(fast, packs)
    torch.manual_seed(4)
    assert_equal(found, losses_and_gradients(plain, packs))
    assert not torch.allclose(losses_and_gradients(fast, packs)[0], found[0])


def test_adapters_can_be_switched_off() -> None:
    """DPO's reference is the model without its adapters."""
    import torch

    from ftagent.toolkit.kernels.select import speed_up

    plain, fast = small_model("llama"), lora(small_model("llama"))
    speed_up(fast)
    packs = split_into_packs(rows(5), 2048)
    with_adapters = losses_and_gradients(fast, packs)[0]
    for module in fast.modules():
        if hasattr(module, "lora_A"):
            module.enable_adapters(False)
    with torch.no_grad():
        found = losses_and_gradients(fast, packs)[0]
        torch.testing.assert_close(found, losses_and_gradients(plain, packs)[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, with_adapters, atol=0.01)


@pytest.mark.parametrize("tokens", [5, 40, 400])
def test_lora_is_the_same_merged_and_apart(tokens: int) -> None:
    """Few tokens are multiplied with the adapter, many with the merged weight."""
    import torch
    from peft import LoraConfig, get_peft_model

    from ftagent.toolkit.kernels.linear import use_fast_linears

    torch.manual_seed(0)
    inner = torch.nn.Sequential(torch.nn.Linear(60, 90))
    adapted = get_peft_model(inner, LoraConfig(r=4, lora_alpha=12, target_modules=["0"], init_lora_weights=False))
    x = torch.randn(2, tokens, 60, requires_grad=True)
    weights = torch.randn(2, tokens, 90)

    def run() -> list[Any]:
        adapted.zero_grad()
        x.grad = None
        y = adapted(x)
        (y * weights).sum().backward()
        return [y.detach(), x.grad, *(p.grad for p in adapted.parameters() if p.requires_grad)]

    expected = run()
    assert use_fast_linears(adapted)
    for found, value in zip(run(), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-4 * float(value.abs().max()))


@pytest.mark.parametrize("trained", [(True, False), (False, True), (True, True)], ids=["hidden", "head", "both"])
def test_log_probabilities_of_the_head(trained: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that do not divide the labels, a bias, unlikely labels, any upstream gradient."""
    import torch

    from ftagent.toolkit.kernels import head

    monkeypatch.setattr(head, "CHUNK_ELEMENTS", 3 * 50)
    torch.manual_seed(1)
    hidden, weight, bias = torch.randn(11, 8), torch.randn(50, 8) * 9, torch.randn(50)
    hidden.requires_grad_(trained[0])
    weight.requires_grad_(trained[1])
    bias.requires_grad_(trained[1])
    targets = torch.arange(11) * 4
    upstream = torch.randn(11)
    leaves = [tensor for tensor in (hidden, weight, bias) if tensor.requires_grad]
    expected = torch.log_softmax(hidden @ weight.t() + bias, dim=-1)[torch.arange(11), targets]
    assert float(expected.detach().min()) < -40
    found = head.head_logprobs(hidden, weight, bias, targets)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(
        torch.autograd.grad(found, leaves, upstream), torch.autograd.grad(expected, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_what_disagrees_is_not_used() -> None:
    """A model whose head scales its logits, and whose blocks are not what they look like."""
    import torch

    from ftagent.toolkit.kernels.select import speed_up

    model = small_model("gemma2", "eager", final_logit_softcapping=2.0, attn_logit_softcapping=None)
    chosen = speed_up(model)
    assert not chosen.head
    assert not chosen.rows

    model = small_model("llama")
    mlp = type(model.model.layers[0].mlp)

    class Other(mlp):  # type: ignore[misc, valid-type]
        def forward(self, x: Any) -> Any:
            return 2 * super().forward(x)

    for layer in model.model.layers:
        layer.mlp.__class__ = Other
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        expected = model(ids).logits
        speed_up(model)
        torch.testing.assert_close(model(ids).logits, expected)


def test_an_adapter_is_saved_as_peft_saves_it(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file

    from ftagent.toolkit.kernels.select import speed_up

    options = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    for folder, fast in (("plain", False), ("fast", True)):
        model = get_peft_model(small_model("llama"), options)
        if fast:
            speed_up(model.get_base_model())
        model.save_pretrained(tmp_path / folder)
    plain, fast = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("plain", "fast"))
    assert plain.keys() == fast.keys()
    for name in ("adapter_config.json", "README.md"):
        texts = [(tmp_path / folder / name).read_text() for folder in ("plain", "fast")]
        assert texts[0] == texts[1]


def test_generation_with_a_cache_is_the_same() -> None:
    """GRPO generates with the model that it trains; rows of different lengths are padded on the left."""
    import torch

    from ftagent.toolkit.kernels.select import speed_up

    ids = torch.tensor([[0, 0, 5, 6, 7], [3, 4, 5, 6, 9]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    model = small_model("qwen2")
    options = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False}
    expected = model.generate(ids, **options)
    speed_up(model)
    assert torch.equal(model.generate(ids, **options), expected)


def test_the_same_training_gives_the_same_bits() -> None:
    import torch

    from ftagent.toolkit.kernels.select import speed_up

    def run() -> tuple[Any, dict[str, Any]]:
        model = lora(small_model("qwen3"))
        speed_up(model)
        return losses_and_gradients(model, split_into_packs(rows(5), 30), upstream=True)

    first, second = run(), run()
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(value, second[1][name]) for name, value in first[1].items())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_is_used_again() -> None:
    import torch

    from ftagent.toolkit.kernels.memory import keep_freed_memory

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            torch.ones(10_000_000)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert keep_freed_memory()
    faults()
    # Each of the 20 tensors has 9766 pages.
    assert faults() < 9766


def test_checkpointed_activations_are_computed_again_the_fast_way() -> None:
    from ftagent.toolkit.kernels.select import speed_up

    plain, fast = (lora(small_model("llama")).train() for _ in range(2))
    fast.activation_checkpointing_enable({"use_reentrant": False})
    assert speed_up(fast).rows
    packs = split_into_packs(rows(5), 2048)
    assert_equal(losses_and_gradients(fast, packs), losses_and_gradients(plain, packs))
