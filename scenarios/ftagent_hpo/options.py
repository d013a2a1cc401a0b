"""Options of the `hpo` scenario (`-o key=value`), and the files that a run is made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ftagent.core.errors import RequestError
from ftagent_hpo.config import FILE, PACKAGED, packaged_text


class HpoOptions(BaseModel):
    """Any key of DEFAULT_CONFIG or AGENT_SETTINGS of hpo.yaml, in any case; the scenario checks the names."""

    model_config = ConfigDict(extra="allow", frozen=True)

    config: str = Field("", description="path of hpo.yaml; else ./hpo.yaml where there is one, else the packaged file")

    @property
    def given(self) -> dict[str, str]:
        """Keys as typed, but for `config`."""
        return {key: str(value) for key, value in (self.model_extra or {}).items()}

    @staticmethod
    def starter_files() -> dict[str, str]:
        """What `ftagent init` writes, by name in the working folder."""
        return {FILE: packaged_text()}

    @staticmethod
    def read_documents(given: Mapping[str, str], script: str | None, space: str | None) -> dict[str, str]:
        """Texts by path as given. They are read when a run starts, and never again. Raises RequestError."""
        path = next((value for key, value in given.items() if key.lower() == "config"), "")
        if not path and Path(FILE).is_file():
            path = FILE
        documents = {path: _read(path, "-o config")} if path else {PACKAGED: packaged_text()}
        if script:
            from ftagent_hpo.script_files import read_script_documents

            return documents | read_script_documents(script, space)
        if space:
            documents[space] = _read(space, "--space")
        return documents


def config_source(options: HpoOptions, documents: Mapping[str, str]) -> tuple[str, str]:
    """Name and text of the run's hpo.yaml among its documents."""
    for name in (options.config, FILE, PACKAGED):
        if name and name in documents:
            return name, documents[name]
    return PACKAGED, packaged_text()


def _read(path: str, option: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(f"{option} {path}: is no UTF-8 text") from error
    except OSError as error:
        raise RequestError(f"{option} {path}: cannot be read: {error.strerror}") from error
