"""What the application tells a scenario when it builds one: `Scenario(options, context)`.

A plug-in scenario gets the same record as a built-in one. It holds values only: no client, no open file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class HubAccess:
    """How models and datasets are fetched. `mirror`: a folder with `mirror.json`, used instead of the hub.

    `home`: the hub's cache (HF_HOME); None keeps what is fetched under FT_FILE_PATH.
    """

    token: str = field(default="", repr=False)
    endpoint: str = ""
    offline: bool = False
    mirror: Path | None = None
    home: Path | None = None


@dataclass(frozen=True)
class Gpu:
    """One device: its id, its name and its memory in MiB; 0 is unknown."""

    id: str
    name: str
    memory_mb: int

    def describe(self) -> str:
        return f"{self.name} ({self.memory_mb} MiB)" if self.memory_mb else self.name


@dataclass(frozen=True)
class Hardware:
    """The machine that experiments run on."""

    cpus: int = 1
    memory_mb: int = 0
    """Total, in MiB; 0 is unknown."""
    gpus: tuple[Gpu, ...] = ()

    def describe(self) -> str:
        """One line for people and prompts."""
        devices = ", ".join(gpu.describe() for gpu in self.gpus) or "no GPU"
        memory = f"{self.memory_mb / 1024:.0f} GiB of memory" if self.memory_mb else "unknown memory"
        return f"{self.cpus} CPU cores, {memory}, {devices}"


@dataclass(frozen=True)
class Timeouts:
    """Wall-clock limits of stages in seconds; 0 is none. They only kill: they never size an experiment."""

    data_processing: float = 3600.0
    debug_data_processing: float = 1200.0
    micro_batch: float = 1800.0
    full: float = 360000.0
    benchmark: float = 0.0


@dataclass(frozen=True)
class ScenarioContext:
    """Everything of a run's request that a scenario may depend on, apart from its own options."""

    files_path: Path
    """FT_FILE_PATH: models, datasets and caches live under it."""
    seed: int = 0
    limit: int | None = None
    """Largest number of items per split; a seeded subset."""
    base_model: str = ""
    benchmark: str = ""
    benchmark_description: str = ""
    user_target: str = ""
    """What the user wants, in words (FT_USER_TARGET_SCENARIO)."""
    datasets: tuple[str, ...] = ()
    script: str = ""
    """Path of a training script to tune."""
    space: str = ""
    """Path of its search space."""
    documents: Mapping[str, str] = field(default_factory=dict)
    """Texts that the run was made from, by path as given: a resumed run reads these, never the files again."""
    hub: HubAccess = HubAccess()
    hardware: Hardware = Hardware()
    gpus: tuple[str, ...] = ()
    """Ids of the devices that this run may use."""
    timeouts: Timeouts = Timeouts()
    samples: int = 1
    """Samples per item and prediction (FT_BENCHMARK_NUM_RUNS)."""
    pass_k: tuple[int, ...] = ()
    upper_data_size: int | None = None
    """Largest number of training rows."""
    llm: bool = False
    """A language model answers the scripts of stages that declare it (`Stage.llm`)."""
