import json
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.config import PredictConfig, TrainConfig, validate_config
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.generate import Draft, batches, gumbel_noise, sample, seeded_generator
from ftagent.toolkit.predict import predict
from ftagent.toolkit.train import train

from .rows import conversations, questions, write

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


def run(model: Path, tmp_path: Path, number: int = 9, **values: Any) -> dict[str, list[str]]:
    asked = tmp_path / f"questions{number}.jsonl"
    if not asked.exists():
        questions(asked, number)
    output = tmp_path / "predictions.jsonl"
    base = {"model": str(model), "questions": str(asked), "output": str(output), "max_new_tokens": 8}
    predict(validate_config({**base, **values}, PredictConfig, "predict.yaml"), lambda record: None)
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert not list(tmp_path.glob("*.partial"))
    return {row["id"]: row["outputs"] for row in rows}


def test_outputs_are_what_the_library_generates_one_by_one(smollm2: Path, tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    found = run(smollm2, tmp_path, 3)
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    for line in (tmp_path / "questions3.jsonl").read_text().splitlines():
        row = json.loads(line)
        inputs = tokenizer.apply_chat_template(
            row["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert found[row["id"]] == [tokenizer.decode(ids, skip_special_tokens=True)]
    assert list(found) == ["q1", "q2", "q3"]


@pytest.mark.parametrize("values", [{}, {"temperature": 0.8, "top_p": 0.9, "samples": 2, "seed": 4}])
def test_outputs_do_not_depend_on_the_batch(tiny: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    together = run(tiny, tmp_path, **values)
    assert run(tiny, tmp_path, batch_size=1, **values) == together
    assert run(tiny, tmp_path, batch_tokens=200, **values) == together
    fewer = run(tiny, tmp_path, 3, **values)
    assert fewer == {key: together[key] for key in fewer}
    if values:
        assert len({text for texts in together.values() for text in texts}) > 9
        assert run(tiny, tmp_path, **{**values, "seed": 5}) != together


def test_an_ended_row_is_dropped_and_the_others_go_on(tiny: Path, tmp_path: Path, tokenizer: Any) -> None:
    import shutil

    free = run(tiny, tmp_path)
    ids = {key: tokenizer(texts[0], add_special_tokens=False)["input_ids"] for key, texts in free.items()}
    # A token that some outputs contain early and others do not becomes the end of turn.
    candidates = {token for tokens in ids.values() for token in tokens[2:6]}
    stop = next(t for t in sorted(candidates) if 0 < sum(t in tokens for tokens in ids.values()) < len(ids))
    folder = tmp_path / "stopping"
    shutil.copytree(tiny, folder)
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**generation, "eos_token_id": [2, stop]}))
    stopped = run(folder, tmp_path)
    assert stopped != free
    for key, tokens in ids.items():
        kept = tokens[: tokens.index(stop)] if stop in tokens else tokens
        assert stopped[key] == [tokenizer.decode(kept, skip_special_tokens=True)]


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    values = {
        "model_path": str(tiny), "dataset_path": str(conversations(folder / "data.jsonl")),
        "save_model_path": str(folder / "out"),
    }  # fmt: skip
    train(validate_config({**values, "epochs": 3, "learning_rate": 0.02}, TrainConfig, ""), lambda record: None)
    return folder / "out"


def test_a_merged_adapter_is_what_peft_computes(tiny: Path, adapter: Path) -> None:
    import torch
    from peft import PeftModel

    from ftagent.toolkit.models import load_model, merge_adapter

    merged = merge_adapter(load_model(str(tiny), "float32", "cpu")[0], adapter)
    base, _ = load_model(str(tiny), "float32", "cpu")
    ids = torch.tensor([[5, 9, 300, 4000]])
    with torch.no_grad():
        untouched = base(ids).logits
        expected = PeftModel.from_pretrained(base, str(adapter)).eval()(ids).logits
        torch.testing.assert_close(merged(ids).logits, expected, rtol=1e-4, atol=1e-3)
    assert not torch.allclose(expected, untouched, atol=0.1)


def test_an_adapter_that_is_not_plain_goes_through_peft(tiny: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    from ftagent.toolkit.models import load_model, merge_adapter

    base, _ = load_model(str(tiny), "float32", "cpu")
    settings = LoraConfig(r=4, target_modules=["q_proj"], use_rslora=True, init_lora_weights=False)
    get_peft_model(base, settings).save_pretrained(tmp_path / "scaled")
    merged = merge_adapter(load_model(str(tiny), "float32", "cpu")[0], tmp_path / "scaled")
    again = PeftModel.from_pretrained(load_model(str(tiny), "float32", "cpu")[0], str(tmp_path / "scaled")).eval()
    ids = torch.tensor([[5, 9, 300]])
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, again(ids).logits, rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings.*:UserWarning", "ignore:.*embedding.*:UserWarning")
def test_an_adapter_of_a_tied_head_leaves_the_embedding(tiny: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from ftagent.toolkit.models import load_model, merge_adapter

    base, _ = load_model(str(tiny), "float32", "cpu")
    assert base.get_input_embeddings().weight is base.get_output_embeddings().weight
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules=["lm_head"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "head")
    merged = merge_adapter(load_model(str(tiny), "float32", "cpu")[0], tmp_path / "head")
    ids = torch.tensor([[5, 9, 300]])
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapted.eval()(ids).logits, rtol=1e-4, atol=1e-3)


def test_only_safetensors_are_loaded(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    import shutil

    import torch

    folder = tmp_path / "pickled"
    shutil.copytree(adapter, folder)
    (folder / "adapter_model.safetensors").unlink()
    torch.save({}, folder / "adapter_model.bin")
    with pytest.raises(ToolkitError, match=r"has no adapter_model\.safetensors"):
        run(tiny, tmp_path, adapter=str(folder))
    torch.save({}, folder / "adapter_model.safetensors")
    with pytest.raises(ToolkitError, match="cannot be read"):
        run(tiny, tmp_path, adapter=str(folder))


def test_an_adapter_of_another_model_is_refused(smollm2: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="is of another model"):
        run(smollm2, tmp_path, adapter=str(adapter))


def test_what_a_killed_predict_had_finished_is_kept(tiny: Path, tmp_path: Path) -> None:
    whole = run(tiny, tmp_path)

    class Killed(Exception):
        pass

    def stop(record: dict[str, Any]) -> None:
        if record["predicted"] >= 4:
            raise Killed

    values = {"model": str(tiny), "questions": str(tmp_path / "questions9.jsonl"), "max_new_tokens": 8}
    output = tmp_path / "again.jsonl"
    wanted = validate_config({**values, "output": str(output), "batch_size": 2}, PredictConfig, "")
    with pytest.raises(Killed):
        predict(wanted, stop)
    assert not output.exists()
    with (tmp_path / "again.jsonl.partial").open("a") as stream:
        stream.write('["q9", 0, "torn')
    records: list[dict[str, Any]] = []
    predict(wanted, records.append)
    assert records[0] == {"event": "resumed", "predicted": 4, "of": 9}
    assert {row["id"]: row["outputs"] for row in map(json.loads, output.read_text().splitlines())} == whole


def test_a_partial_file_of_another_request_is_not_used(tiny: Path, tmp_path: Path) -> None:
    whole = run(tiny, tmp_path)
    (tmp_path / "predictions.jsonl.partial").write_text('somebody else\n["q1", 0, "wrong"]\n')
    assert run(tiny, tmp_path) == whole


def test_a_prompt_beyond_the_context_is_refused_with_its_line(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match=r"questions9\.jsonl:1: \d+ tokens and 9000 new ones exceed"):
        run(tiny, tmp_path, max_new_tokens=9000)


def test_batches_keep_their_bounds() -> None:
    drafts = [Draft(str(n), 0, [1] * n) for n in (5, 90, 30, 7, 8)]
    values = {"model": "m", "questions": "q", "output": "o", "max_new_tokens": 10}
    wanted = validate_config({**values, "batch_size": 3, "batch_tokens": 100}, PredictConfig, "")
    assert [[len(d.prompt) for d in batch] for batch in batches(drafts, wanted)] == [[90], [30, 8], [7, 5]]


def test_sampling_follows_the_distribution_and_top_p() -> None:
    import torch

    logits = torch.log(torch.tensor([[0.1, 0.6, 0.3]])).expand(20_000, 3)
    uniform = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(1))
    noise = -torch.log(-torch.log(uniform))

    def shares(temperature: float, top_p: float) -> list[float]:
        tokens = sample(logits, noise, temperature, top_p)
        return [tokens.count(token) / len(tokens) for token in range(3)]

    # Four standard errors of a share of 20,000 draws are at most 0.014.
    assert shares(1.0, 1.0) == pytest.approx([0.1, 0.6, 0.3], abs=0.014)
    assert shares(1.0, 0.7) == pytest.approx([0, 2 / 3, 1 / 3], abs=0.014)
    assert shares(1.0, 0.5) == [0, 1, 0]
    assert shares(0.5, 1.0) == pytest.approx([0.01 / 0.46, 0.36 / 0.46, 0.09 / 0.46], abs=0.014)


def test_noise_is_that_of_the_draft_whatever_its_neighbours() -> None:
    import torch

    drafts = [Draft(identity, number, [1]) for identity in "ab" for number in range(2)]
    together = gumbel_noise([seeded_generator(3, draft) for draft in drafts], 1000)
    for draft, expected in zip(drafts, together, strict=True):
        assert torch.equal(gumbel_noise([seeded_generator(3, draft)], 1000)[0], expected)
        assert not torch.equal(gumbel_noise([seeded_generator(4, draft)], 1000)[0], expected)
    assert together.unique(dim=0).shape == (4, 1000)
    # Mean and variance of the standard Gumbel distribution.
    assert float(together.mean()) == pytest.approx(0.5772, abs=0.08)
    assert float(together.var()) == pytest.approx(1.645, abs=0.2)


def test_no_partial_row_reaches_the_output(tiny: Path, tmp_path: Path) -> None:
    asked = write(tmp_path / "one.jsonl", [{"id": 7, "messages": [{"role": "user", "content": "é"}]}])
    values = {"model": str(tiny), "questions": str(asked), "output": str(tmp_path / "deep" / "out.jsonl")}
    predict(validate_config({**values, "max_new_tokens": 3}, PredictConfig, ""), lambda record: None)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out.jsonl"]
