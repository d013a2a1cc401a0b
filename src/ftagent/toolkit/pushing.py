"""A model or an adapter uploaded to a hub, in one commit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ftagent.toolkit.checking import check_folder
from ftagent.toolkit.checking.check import Options
from ftagent.toolkit.checking.findings import listed
from ftagent.toolkit.errors import ToolkitError
from ftagent.toolkit.files import MARKER

WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")
UPLOADED = (
    *WEIGHTS, "config.json", "adapter_config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model",
    "spiece.model", "sentencepiece.bpe.model", "tekken.json", "*.tiktoken", "tiktoken.model", "chat_template.jinja",
    "chat_template.json", "preprocessor_config.json", "processor_config.json", "README.md", "LICENSE*", "NOTICE*",
    "merge.json",
)  # fmt: skip
"""Everything else stays: checkpoints, logs, optimiser states, pickles, the training's own records."""
OF_TRAINING = ("metrics.jsonl", "summary.json", "progress.json", "checkpoints")
DEFAULT_ENDPOINT = "https://huggingface.co"
MAIN = "main"


@dataclass(frozen=True)
class Hub:
    """Where to upload to, and who does. `endpoint` "" is huggingface.co."""

    token: str = field(repr=False)
    endpoint: str = ""

    @property
    def address(self) -> str:
        return self.endpoint.rstrip("/") or DEFAULT_ENDPOINT


@dataclass(frozen=True)
class Upload:
    """What will happen. `files`: names in `folder`; `deleted`: old weights in the repository."""

    folder: Path
    repo: str
    files: tuple[str, ...]
    size: int
    left: tuple[str, ...]
    warnings: tuple[str, ...]
    exists: bool
    private: bool
    deleted: tuple[str, ...] = ()
    revision: str = MAIN


def select_files(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(names to upload, names that stay). Raises ToolkitError for a folder that is not whole or not ours to follow."""
    checked = check_folder(folder, Options(memory=False))
    if checked.faults:
        first = checked.faults[0]
        raise ToolkitError(f"{folder}: {first.check}: {first.text}; right: {first.right}")
    traces = [name for name in OF_TRAINING if (folder / name).exists()]
    if traces and not (folder / MARKER).is_file():
        raise ToolkitError(
            f"{folder}: has {traces[0]} but no {MARKER}: the training did not finish; go on with it, or push a "
            "checkpoint that is complete"
        )
    names = sorted(path.name for path in folder.iterdir())
    chosen = tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in UPLOADED))
    links = [name for name in chosen if (folder / name).is_symlink() or not (folder / name).is_file()]
    if links:
        raise ToolkitError(f"{folder}: {listed(links)}: symbolic links are not followed; push a folder of plain files")
    return chosen, tuple(name for name in names if name not in chosen)


def plan_upload(folder: Path, repo: str, hub: Hub, private: bool, revision: str = "") -> Upload:
    """Check the folder, then ask the hub who we are and what is there. Changes nothing. Raises ToolkitError."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    files, left = select_files(folder)
    if not hub.token:
        raise ToolkitError("HF_TOKEN is not set: a token of the hub that may write")
    branch = revision or MAIN
    with _hub_errors(hub, repo):
        api = _api(hub)
        owner = str(api.whoami()["name"])
        name = repo if "/" in repo else f"{owner}/{repo}"
        try:
            there: Any = api.repo_info(name)
        except RepositoryNotFoundError:
            there = None
        try:
            remote = api.list_repo_files(name, revision=branch) if there is not None else []
        except RevisionNotFoundError:
            remote = api.list_repo_files(name)
    if there is not None and private and not there.private:
        raise ToolkitError(f"{name}: is there and public; --private is for a new repository")
    deleted = tuple(file for file in remote if file not in files and _matches(file, WEIGHTS))
    size = sum((folder / file).stat().st_size for file in files)
    return Upload(
        folder, name, files, size, left, _warnings(folder), there is not None,
        bool(there.private) if there is not None else private, deleted, branch,
    )  # fmt: skip


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _warnings(folder: Path) -> tuple[str, ...]:
    import json

    found = []
    config = folder / "adapter_config.json"
    if config.is_file():
        base = str(json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path") or "")
        if base.startswith(("/", ".", "~")):
            found.append(f"adapter_config.json names the local path {base} as base model: nobody else has it")
    if not (folder / "README.md").is_file():
        found.append("there is no README.md: the model will have no card")
    return tuple(found)


def upload(planned: Upload, hub: Hub, message: str = "") -> str:
    """Create the repository where it is new and commit all files at once; returns the address of the commit."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[Any] = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(planned.folder / name)) for name in planned.files
    ]
    operations += [CommitOperationDelete(path_in_repo=name) for name in planned.deleted]
    with _hub_errors(hub, planned.repo):
        api = _api(hub)
        if not planned.exists:
            api.create_repo(planned.repo, private=planned.private)
        if planned.revision != MAIN:
            api.create_branch(planned.repo, branch=planned.revision, exist_ok=True)
        done = api.create_commit(
            planned.repo, operations, commit_message=message or f"Upload {planned.folder.resolve().name}",
            revision=planned.revision,
        )  # fmt: skip
    return str(done.commit_url)


def _api(hub: Hub) -> Any:
    from huggingface_hub import HfApi, utils

    quiet: Any = utils
    quiet.disable_progress_bars()
    return HfApi(endpoint=hub.address, token=hub.token, library_name="ftagent")


@contextmanager
def _hub_errors(hub: Hub, repo: str) -> Iterator[None]:
    """Every failure of the hub as a ToolkitError of one line."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise ToolkitError(f"REPO {repo!r}: write OWNER/NAME or NAME, letters, digits, '-', '_' and '.'") from error
    except (HfHubHTTPError, httpx.HTTPError, ValueError, RuntimeError, OSError) as error:
        raise ToolkitError(_explain(error, hub, repo)) from error


def _explain(error: BaseException, hub: Hub, repo: str) -> str:
    """What the hub said, or that it said nothing. Looks behind the wrapping of huggingface_hub's uploads."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, httpx.TransportError | HfHubHTTPError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, httpx.TransportError):
        return f"the hub {hub.address} is not reachable ({type(cause).__name__}); is HF_ENDPOINT right?"
    if not isinstance(cause, HfHubHTTPError):
        return f"{repo}: {' '.join(str(error).split())[:300]}"
    status = cause.response.status_code
    said = " ".join((cause.server_message or str(cause)).split())[:200]
    known = {
        401: f"the hub {hub.address} refused HF_TOKEN (401): {said}",
        403: f"{repo}: HF_TOKEN may not write there (403): {said}",
        409: f"{repo}: the name is taken (409): {said}",
    }
    return known.get(status, f"{repo}: the hub {hub.address} answered {status}: {said}")
