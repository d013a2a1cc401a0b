"""Training and predicting with the keys of train.yaml, on real weights' format: prompts are those of training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ftagent.toolkit.config import PredictConfig, TrainConfig, validate_config
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.predict import predict
from ftagent.toolkit.train import Summary, train

from .families import template
from .rows import write

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
TURN = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "<think>\ntwo\n</think>\n\n4"}]


@pytest.fixture
def thinker(tiny: Path, tmp_path: Path) -> Path:
    """The tiny model with Qwen3's chat template."""
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    (folder / "chat_template.jinja").write_text(template("qwen3"), encoding="utf-8")
    return folder


def trained(model: Path, folder: Path, **keys: Any) -> Summary:
    data = write(folder / "data.jsonl", [{"messages": TURN * 3}] * 2)
    paths = {"model_path": str(model), "dataset_path": str(data), "save_model_path": str(folder / "adapter")}
    summary = train(
        validate_config({**paths, "epochs": 1, "rank": 2, **keys}, TrainConfig, "train.yaml"), lambda event: None
    )
    assert summary is not None
    return summary


@pytest.mark.parametrize(("thinking", "rows"), [("split_turns", 6), ("keep_all", 2), ("last_only", 2), ("drop", 6)])
def test_train_maps_as_its_config_says(thinker: Path, tmp_path: Path, thinking: str, rows: int) -> None:
    summary = trained(thinker, tmp_path, map_function="qwen", thinking=thinking)
    assert summary.numbers == {"rows": rows, "rows_cut": 0, "rows_dropped": 0}


def test_rows_without_labels_are_counted_as_dropped(thinker: Path, tmp_path: Path) -> None:
    summary = trained(thinker, tmp_path, thinking="split_turns", max_length=40)
    assert (summary.numbers["rows"], summary.numbers["rows_dropped"]) == (4, 2)
    assert summary.numbers["rows_cut"] > 2


def test_a_map_function_of_another_family_is_refused(thinker: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="map_function: gemma does not fit the model"):
        trained(thinker, tmp_path, map_function="gemma")


@pytest.mark.parametrize("thinking", ["drop", "split_turns"])
def test_predict_gives_an_adapter_the_prompts_it_was_trained_on(thinker: Path, tmp_path: Path, thinking: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trained(thinker, tmp_path, thinking=thinking)
    adapter = tmp_path / "adapter"
    (adapter / "train.yaml").write_text(f"thinking: {thinking}\n")
    questions = write(tmp_path / "questions.jsonl", [{"id": "a", "messages": TURN[:1]}])
    output = tmp_path / "output.jsonl"
    predict(
        PredictConfig(
            model=str(thinker), adapter=str(adapter), questions=questions, output=output, max_new_tokens=8,
            dtype="float32", device="cpu",
        ),
        lambda event: None,
    )  # fmt: skip
    from peft import PeftModel

    tokenizer = AutoTokenizer.from_pretrained(thinker)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(thinker), adapter).eval()
    block = "<think>\n\n</think>\n\n" if thinking == "drop" else ""
    prompt = f"<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n{block}"
    ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        for _ in range(8):
            logits: Any = model(input_ids=ids).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
            if ids[0, -1] == tokenizer.eos_token_id:
                break
    expected = tokenizer.decode(ids[0, len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) :], True)
    assert json.loads(output.read_text())["outputs"] == [expected]
