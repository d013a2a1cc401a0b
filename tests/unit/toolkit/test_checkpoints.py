import json
from pathlib import Path

import pytest

from ftagent.toolkit.checkpoints import Listing, find_adapter, find_checkpoint, list_checkpoints
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.folders import base_of
from support.trained import save_adapter, save_training


def states(listing: Listing) -> dict[str, str]:
    return {item.name: item.state for item in listing.checkpoints}


def marks(listing: Listing) -> dict[str, str]:
    """Which is the newest and which is the best."""
    newest = [item.name for item in listing.checkpoints if item.newest]
    best = [item.name for item in listing.checkpoints if item.best]
    return {"newest": " ".join(newest), "best": " ".join(best)}


def test_a_training_is_listed_with_what_was_measured(tmp_path: Path) -> None:
    listing = list_checkpoints(save_training(tmp_path / "out"))
    assert (listing.kind, listing.base) == ("training", "base-model")
    assert marks(listing) == {"newest": "final", "best": "step-00000010"}
    found = [(item.name, item.step, item.loss, item.validation, item.state) for item in listing.checkpoints]
    assert found == [
        ("step-00000010", 10, 2.0, ("validation_loss", 1.5), "complete"),
        ("step-00000020", 20, 1.0, ("validation_loss", 1.75), "complete"),
        ("step-00000030", 30, 0.75, ("validation_loss", 2.0), "complete"),
        ("final", 40, 0.5, ("validation_loss", 2.5), "complete"),
    ]
    assert all(2000 < item.bytes < 4000 for item in listing.checkpoints[:3])


@pytest.mark.parametrize("damage", ["cut", "same size", "gone", "unmarked", "no marker", "outside"])
def test_what_is_damaged_or_cut_short_is_told_and_never_used(tmp_path: Path, damage: str) -> None:
    out = save_training(tmp_path / "out")
    step = out / "checkpoints" / "step-00000030"
    weights = step / "adapter_model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "same size":
        weights.write_bytes(b"\0" * 1999 + b"\1")
    elif damage == "gone":
        (step / "progress.json").unlink()
    elif damage == "unmarked":
        (step / "complete.json").write_text('{"files": {}}')
    elif damage == "outside":
        (step / "complete.json").write_text('{"files": {"../../metrics.jsonl": "0"}}')
    else:
        (step / "complete.json").unlink()
    listing = list_checkpoints(out)
    expected = "incomplete" if damage == "no marker" else "damaged"
    assert states(listing)["step-00000030"] == expected
    with pytest.raises(ToolkitError, match=f"step-00000030: {expected}: .* not loaded"):
        find_checkpoint(out, "30")
    (out / "complete.json").unlink()
    listing = list_checkpoints(out)
    assert states(listing)["final"] == "incomplete"
    assert marks(listing)["newest"] == "step-00000020"
    assert find_adapter(out) == out / "checkpoints" / "step-00000020"


def test_each_word_finds_what_it_says(tmp_path: Path) -> None:
    out = save_training(tmp_path / "out")
    steps = out / "checkpoints"
    assert find_adapter(out, "latest") == find_adapter(out, "final") == out
    assert find_adapter(out, "best") == find_adapter(out, "10") == find_adapter(out, "step-10")
    assert find_adapter(out, "step-00000020") == find_adapter(out, steps / "step-00000020") == steps / "step-00000020"
    other = save_adapter(tmp_path / "other")
    assert find_adapter(out, str(other)) == find_adapter(other) == find_adapter(other, "best") == other
    with pytest.raises(
        ToolkitError, match=r"'step-11': no such checkpoint in .*out; there are step-00000010 \(best\), "
    ):
        find_checkpoint(out, "step-11")
    with pytest.raises(ToolkitError, match="no such folder"):
        find_checkpoint(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ToolkitError, match="neither a training"):
        find_adapter(tmp_path / "empty")


def test_the_best_without_a_file_that_names_it(tmp_path: Path) -> None:
    out = save_training(tmp_path / "out")
    (out / "checkpoints" / "best.json").unlink()
    assert marks(list_checkpoints(out))["best"] == "step-00000010"
    (out / "checkpoints" / "step-00000010" / "complete.json").unlink()
    assert marks(list_checkpoints(out))["best"] == "step-00000020"
    bare = tmp_path / "bare"
    save_adapter(bare / "checkpoints" / "step-00000005", progress={"step": 5})
    with pytest.raises(ToolkitError, match="'best': no such checkpoint"):
        find_checkpoint(bare, "best")
    assert find_checkpoint(bare).step == 5


def test_a_result_that_is_the_best_is_marked_when_its_checkpoint_is_gone(tmp_path: Path) -> None:
    out = save_training(tmp_path / "out")
    (out / "checkpoints" / "best.json").write_text('{"step": 40, "metric": "validation_loss", "value": 0.1}')
    assert marks(list_checkpoints(out))["best"] == "final"


def test_a_result_with_the_weights_of_the_best_step_is_the_best(tmp_path: Path) -> None:
    out = save_training(tmp_path / "out")
    save_adapter(out, summary={"steps": 40, "tokens": 4000, "best_step": 10, "validation_loss": 1.5})
    listing = list_checkpoints(out)
    assert marks(listing) == {"newest": "final", "best": "step-00000010 final"}
    assert (listing.checkpoints[-1].step, listing.checkpoints[-1].validation) == (10, ("validation_loss", 1.5))
    assert find_adapter(out, "best") == out
    (out / "complete.json").unlink()
    assert find_adapter(out, "best").name == "step-00000010"


def test_state_alone_and_whole_models_are_told_from_adapters(tmp_path: Path) -> None:
    out = tmp_path / "out"
    step = out / "checkpoints" / "step-00000003"
    step.mkdir(parents=True)
    (step / "state.safetensors").write_bytes(b"x")
    (out / "metrics.jsonl").write_text("")
    listing = list_checkpoints(out)
    assert [(item.holds, item.usable) for item in listing.checkpoints] == [("state", False)]
    with pytest.raises(ToolkitError, match="only what a training goes on from"):
        find_checkpoint(out, "3")
    (out / "config.json").write_text("{}")
    (out / "model.safetensors").write_bytes(b"x")
    assert [item.holds for item in list_checkpoints(out).checkpoints] == ["state", "weights"]
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"x")
    assert find_checkpoint(model).holds == "weights"
    with pytest.raises(ToolkitError, match="holds the weights of a whole model, not an adapter"):
        find_adapter(model)


def test_a_run_offers_what_it_selected(tmp_path: Path) -> None:
    run = tmp_path / "run"
    best = save_adapter(run / "best", base="/inside/the/sandbox", summary={"steps": 7})
    (run / "journal.jsonl").write_text("")
    (run / "run.json").write_text(json.dumps({"request": {"base_model": "smollm2-135m"}}))
    (best / "README.md").write_text("a card that was written later")
    (best / "metrics.jsonl").write_text('{"step": 7, "loss": 1.0}\n')
    listing = list_checkpoints(run)
    assert (listing.kind, listing.base) == ("run", "smollm2-135m")
    assert [(item.step, item.state, item.best, item.newest) for item in listing.checkpoints] == [
        (7, "complete", True, True)
    ]
    assert find_adapter(run, "best") == find_adapter(run, "latest") == find_adapter(best) == best
    assert base_of(best) == "smollm2-135m"


def test_the_base_of_a_checkpoint_without_adapter_comes_from_its_training(tmp_path: Path) -> None:
    step = tmp_path / "out" / "checkpoints" / "step-00000003"
    step.mkdir(parents=True)
    (tmp_path / "out" / "train.yaml").write_text("model_path: models/base\n")
    assert base_of(step) == "models/base"
    (tmp_path / "out" / "train.yaml").write_text("model_path: [")
    assert base_of(step) == ""


def test_a_readme_may_change_and_an_adapter_of_others_has_no_marker(tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "adapter")
    assert states(list_checkpoints(folder)) == {"adapter": "complete"}
    (folder / "complete.json").unlink()
    assert states(list_checkpoints(folder)) == {"adapter": "unmarked"}
    assert find_adapter(folder) == folder
