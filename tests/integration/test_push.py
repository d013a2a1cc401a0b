"""`ftagent push` against a real server with a hub's endpoints."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ftagent.cli import run as command_line
from ftagent.toolkit.files import mark_complete
from support.adapters import make_adapter, make_base
from support.hub_server import TOKEN, HubServer, Repository, running_hub

pytestmark = [
    pytest.mark.model,
    # Of huggingface_hub's upload: how it calls httpx.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


Push = Callable[..., Answer]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    from huggingface_hub import constants

    # As HF_HUB_DISABLE_XET=1 does, which is read once when the library is imported.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with running_hub() as running:
        yield running


@pytest.fixture
def push(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Push:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)

    def call(*words: object) -> Answer:
        capsys.readouterr()
        code = command_line(["push", *map(str, words)])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base = make_base(tmp_path_factory.mktemp("base"))
    return base, make_adapter(base, tmp_path_factory.mktemp("adapter"))


@pytest.fixture
def model(made: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "model"))


@pytest.fixture
def trained(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """An adapter as a training leaves it, with everything that must stay."""
    folder = Path(shutil.copytree(made[1], tmp_path / "trained"))
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    (folder / "file.log").write_text("secret of the log\n")
    (folder / "train.yaml").write_text("rank: 4\n")
    (folder / "summary.json").write_text("{}")
    (folder / "training_args.bin").write_bytes(b"\x80\x04.")
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04.")
    (folder / "state.safetensors").write_bytes(b"x")
    (folder / ".env").write_text("HF_TOKEN=x\n")
    (folder / "checkpoints/step-00000001").mkdir(parents=True)
    (folder / "checkpoints/step-00000001/adapter_model.safetensors").write_bytes(b"x")
    mark_complete(folder, "x", ["adapter_model.safetensors", "adapter_config.json", "train.yaml"])
    return folder


def refused(answer: Answer, *parts: str) -> None:
    assert answer.code == 2, answer
    *before, last = answer.err.splitlines()
    assert all(line.startswith("warning: ") for line in before)
    assert last.startswith("error: ")
    assert TOKEN not in answer.err
    assert [part for part in parts if part not in answer.err] == []


def test_a_model_arrives_as_it_is(hub: HubServer, push: Push, model: Path) -> None:
    answer = push(model, "mine", "--private", "--message", "First weights", "--yes")
    assert (answer.code, answer.out.splitlines()[-1]) == (0, f"uploaded: {hub.url}/tester/mine/commit/{'1' * 40}")
    repository = hub.repositories["tester/mine"]
    assert (repository.private, repository.messages) == (True, ["First weights"])
    uploaded = repository.branches["main"]
    assert uploaded == {path.name: path.read_bytes() for path in model.iterdir()}
    assert hub.objects.keys() == {_digest(model / "model.safetensors")}
    assert any(request.endswith("objects/batch") for request in hub.requests)


def _digest(path: Path) -> str:
    from ftagent.toolkit.files import sha256

    return sha256(path)


def test_what_is_no_part_of_an_adapter_stays(hub: HubServer, push: Push, trained: Path) -> None:
    answer = push(trained, "tester/adapter", "--yes")
    assert answer.code == 0
    uploaded = hub.repositories["tester/adapter"].branches["main"]
    assert sorted(uploaded) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    for name in ("checkpoints", "file.log", "metrics.jsonl", "state.safetensors", "adapter_model.bin", ".env"):
        assert name in next(line for line in answer.out.splitlines() if line.startswith("stays here"))
    assert "names the local path" in answer.err
    assert not any(b"secret of the log" in content for content in uploaded.values())


def test_a_dry_run_and_no_answer_change_nothing(hub: HubServer, push: Push, model: Path) -> None:
    answer = push(model, "mine", "--dry-run")
    assert (answer.code, hub.repositories) == (0, {})
    assert "model.safetensors" in answer.out
    assert f"{hub.url}/tester/mine (public, is new)" in answer.out
    refused(push(model, "mine"), "Nobody to ask here: add --yes")
    assert hub.repositories == {}
    assert [request for request in hub.requests if not request.startswith("GET")] == []


def test_an_update_replaces_old_weights(hub: HubServer, push: Push, model: Path) -> None:
    old = {"model-00001-of-00002.safetensors": b"old", "model.safetensors.index.json": b"{}", "notes.md": b"kept"}
    hub.repositories["tester/mine"] = Repository(branches={"main": dict(old)})
    answer = push(model, "tester/mine", "--yes")
    assert answer.code == 0
    assert "deleted there, because it would be loaded too: model-00001-of-00002.safetensors" in answer.out
    names = set(hub.repositories["tester/mine"].branches["main"])
    assert names == {path.name for path in model.iterdir()} | {"notes.md"}
    refused(push(model, "tester/mine", "--private", "--yes"), "is there and public")


def test_a_branch_of_its_own(hub: HubServer, push: Push, model: Path) -> None:
    hub.repositories["tester/mine"] = Repository(branches={"main": {"notes.md": b"kept"}})
    assert push(model, "tester/mine", "--revision", "trial", "--yes").code == 0
    branches = hub.repositories["tester/mine"].branches
    assert branches["main"] == {"notes.md": b"kept"}
    assert "model.safetensors" in branches["trial"]
    assert push(model, "tester/mine", "--revision", "trial", "--yes").code == 0


def cut_weights(folder: Path) -> None:
    path = next(folder.glob("*model.safetensors"))
    path.write_bytes(path.read_bytes()[:-4])


def change_after_training(folder: Path) -> None:
    (folder / "train.yaml").write_text("rank: 5\n")


def no_marker(folder: Path) -> None:
    (folder / "complete.json").unlink()


def link_to_elsewhere(folder: Path) -> None:
    (folder / "LICENSE").symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut_weights, "is truncated"),
        (change_after_training, "train.yaml: not what complete.json has the hash of"),
        (no_marker, "the training did not finish"),
        (link_to_elsewhere, "LICENSE: symbolic links are not followed"),
    ],
)
def test_what_is_not_whole_is_not_pushed(
    hub: HubServer, push: Push, trained: Path, damage: Callable[[Path], None], says: str
) -> None:
    damage(trained)
    refused(push(trained, "tester/adapter", "--yes"), says)
    assert hub.requests == []


def test_refusals_of_the_hub_are_one_line(
    hub: HubServer, push: Push, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.hidden.add("tester/taken")
    refused(push(model, "tester/taken", "--yes"), "tester/taken: the name is taken (409)")
    refused(push(model, "somebody/else", "--yes"), "somebody/else: HF_TOKEN may not write there (403)")
    refused(push(model, "not a name!", "--yes"), "'not a name!': write OWNER/NAME or NAME")
    hub.fail_upload = True
    refused(push(model, "mine", "--yes"), "answered 422", "the store is full")
    assert hub.repositories["tester/mine"].branches["main"] == {}
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(push(model, "mine", "--yes"), f"the hub {hub.url} refused HF_TOKEN (401)")


def test_without_hub_or_token(push: Push, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused(push(model, "mine", "--yes"), "the hub http://127.0.0.1:9 is not reachable", "HF_ENDPOINT")
    monkeypatch.delenv("HF_TOKEN")
    refused(push(model, "mine", "--yes"), "HF_TOKEN is not set")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(push(model, "mine", "--yes"), "HF_HUB_OFFLINE is set")


def test_what_was_pushed_loads_from_the_hub(hub: HubServer, push: Push, model: Path, tmp_path: Path) -> None:
    """The files of the commit, put into a folder, are a model that `check-model` finds nothing wrong with."""
    assert push(model, "mine", "--yes").code == 0
    copy = tmp_path / "downloaded"
    copy.mkdir()
    for name, content in hub.repositories["tester/mine"].branches["main"].items():
        (copy / name).write_bytes(content)
    assert command_line(["check-model", str(copy), "--lengths", "64", "--deep"]) == 0


def test_the_server_refuses_a_wrong_hash(hub: HubServer) -> None:
    """So that a test above would see content that was changed on its way."""
    import httpx

    answer = httpx.put(f"{hub.url}/store/{'0' * 64}", content=b"x")
    assert (answer.status_code, hub.objects) == (400, {})
