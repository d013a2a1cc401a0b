"""The Docker Engine: where it answers, and the few requests that we make, with their failures in our words.

Every method of `Engine` blocks; the environment calls them in threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ftagent.core.errors import EnvironmentUnavailable, FtagentError, StorageFull
from ftagent.environments.docker_config import DEFAULT_PATH, EngineFacts, Image

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
REQUEST_SECONDS = 120.0
BUILD_SECONDS = 3600.0
"""Longest silence of a build."""
INSTALL = "start Docker, or set DOCKER_HOST to where it answers"
GPU_HINT = (
    "install the NVIDIA driver and the NVIDIA Container Toolkit (`nvidia-ctk runtime configure`), restart Docker, "
    "or leave --gpus out"
)


class EngineGone(EnvironmentUnavailable):
    """The engine does not answer."""


class NoSuchContainer(Exception):
    """Somebody removed it."""


def address(environ: Mapping[str, str], home: Path | None = None) -> str:
    """Where docker's own command line would look: DOCKER_HOST, the chosen context, the system's socket."""
    if host := environ.get("DOCKER_HOST"):
        return host
    folder = Path(environ.get("DOCKER_CONFIG") or (home or Path.home()) / ".docker")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        name = environ.get("DOCKER_CONTEXT") or json.loads((folder / "config.json").read_text())["currentContext"]
        place = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest() / "meta.json"
        return str(json.loads(place.read_text())["Endpoints"]["docker"]["Host"])
    return DEFAULT_ADDRESS


def why_unreachable(where: str) -> str:
    """Empty when somebody listens at address `where`, else one line. Imports and asks nothing."""
    kind, _, rest = where.partition("://")
    if kind == "unix":
        family, target = socket.AF_UNIX, rest
    elif kind in ("tcp", "http"):
        host, _, port = rest.rstrip("/").rpartition(":")
        family, target = socket.AF_INET, (host.strip("[]"), int(port) if port.isdigit() else 2375)  # type: ignore[assignment]
    else:
        return f"{where}: an engine on another machine shares no folders with this one; {INSTALL}"
    try:
        with socket.socket(family) as tried:
            tried.settimeout(3)
            tried.connect(target)
    except OSError as error:
        return f"no Docker Engine answers at {where} ({error.strerror or error}); {INSTALL}"
    return ""


class Attached:
    """The connection to a container's standard streams. Closing it ends the container."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.socket = socket.socket(fileno=os.dup(raw.fileno()))
        self.socket.setblocking(False)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        if response := getattr(self._raw, "_response", None):
            response.close()
        self._raw.close()


class Engine:
    """One engine. Connects when it is first asked; methods may be called in several threads."""

    def __init__(self, where: str) -> None:
        self.address = where
        self._client: Any = None

    @property
    def client(self) -> Any:
        """The SDK's client. Raises EngineGone.

        Asked before every request: where nobody listens, the SDK would leave open the socket that it tried with.
        """
        if why := why_unreachable(self.address):
            raise EngineGone(why)
        if self._client is None:
            from docker import APIClient

            with self._told("connecting"):
                self._client = APIClient(base_url=self.address, version="auto", timeout=REQUEST_SECONDS)
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def facts(self) -> EngineFacts:
        with self._told("asking for what it can"):
            info = self.client.info()
        options = [option.partition(",")[0] for option in info.get("SecurityOptions") or ()]
        return EngineFacts(
            version=str(info.get("ServerVersion", "")),
            cpus=int(info.get("NCPU") or 0),
            rootless="name=rootless" in options,
            remaps_users="name=userns" in options,
            selinux="name=selinux" in options,
        )

    def image(self, name: str) -> Image | None:
        """The image `name` if it is there."""
        from docker.errors import NotFound

        try:
            with self._told(f"looking for image {name}", NotFound):
                found = self.client.inspect_image(name)
        except NotFound:
            return None
        variables = dict(text.partition("=")[::2] for text in (found.get("Config") or {}).get("Env") or ())
        return Image(name, found["Id"], variables.get("PATH") or DEFAULT_PATH)

    def create(self, name: str, config: dict[str, Any]) -> tuple[str, ...]:
        """Make a container; what the engine warns of. Raises EnvironmentUnavailable, StorageFull."""
        with self._told("making a container"):
            made = self.client.create_container_from_config(config, name)
        return tuple(made.get("Warnings") or ())

    def attach(self, name: str) -> Attached:
        """Connect to a container's streams, before it starts."""
        streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        with self._told("attaching to a container"):
            return Attached(self.client.attach_socket(name, params=streams))

    def start(self, name: str) -> None:
        with self._told("starting a container"):
            self.client.start(name)

    def state(self, name: str) -> dict[str, Any]:
        """How a container is. Raises NoSuchContainer, EngineGone."""
        from docker.errors import NotFound

        try:
            with self._told("looking at a container", NotFound):
                state: dict[str, Any] = self.client.inspect_container(name)["State"]
        except NotFound as error:
            raise NoSuchContainer(name) from error
        return state

    def remove(self, name: str) -> None:
        """Kill and remove a container with its anonymous volumes; one that is gone is no error."""
        from docker.errors import APIError, NotFound

        try:
            with self._told("removing a container", NotFound, APIError):
                self.client.remove_container(name, v=True, force=True)
        except NotFound:
            return
        except APIError as error:
            if error.status_code != 409:  # somebody removes it already
                raise EnvironmentUnavailable(f"{self.address}: removing container {name}: {_line(error)}") from error

    def containers(self, label: str) -> list[dict[str, Any]]:
        """All containers that carry `label`, stopped ones too."""
        with self._told("listing containers"):
            found: list[dict[str, Any]] = self.client.containers(all=True, filters={"label": label})
        return found

    def build(self, context: str, name: str, target: str, arguments: dict[str, str]) -> Iterator[dict[str, Any]]:
        """Build the folder `context` and call the image `name`; what the engine tells, step by step."""
        with self._told(f"building image {name}"):
            yield from self._builder().build(
                path=context, tag=name, target=target or None, buildargs=arguments, decode=True, rm=True, forcerm=True
            )

    def pull(self, name: str) -> Iterator[dict[str, Any]]:
        """Fetch image `name` from its registry; what the engine tells, step by step."""
        with self._told(f"pulling image {name}"):
            repository, tag = _name_and_tag(name)
            yield from self._builder().pull(repository, tag=tag, stream=True, decode=True)

    def _builder(self) -> Any:
        """A client that waits as long as a download takes."""
        from docker import APIClient

        version = self.client.api_version
        return APIClient(base_url=self.address, version=version, timeout=BUILD_SECONDS)

    @contextlib.contextmanager
    def _told(self, doing: str, *passing: type[Exception]) -> Iterator[None]:
        """Failures of the SDK in our words; those of `passing` as they are."""
        from docker.errors import APIError, DockerException

        try:
            yield
        except passing:
            raise
        except APIError as error:
            raise _refused(error, f"{self.address}: {doing}") from error
        except (DockerException, OSError) as error:  # those of requests are OSErrors
            raise EngineGone(
                f"no Docker Engine answers at {self.address} ({doing}: {_line(error)}); {INSTALL}"
            ) from error


HINTS = (
    (("no such image",), "`ftagent env build docker` makes it"),
    (("could not select device driver", "nvidia", "cdi device"), GPU_HINT),
    (
        ("executable file not found", "no such file or directory: unknown"),
        "the image needs Python 3 as `python3` on its PATH",
    ),
    (("bind source path does not exist",), "the engine must run on this machine and see its folders"),
)
"""Words of the engine's refusals, and what helps then."""


def _refused(error: Any, what: str) -> FtagentError:
    text = _line(error)
    if "no space left on device" in text.lower():
        return StorageFull(f"{what}: the engine's disk is full ({text})")
    hints = (hint for words, hint in HINTS if any(word in text.lower() for word in words))
    return EnvironmentUnavailable(f"{what}: {text}", next(hints, ""))


def _line(error: Exception) -> str:
    """What happened, on one line of at most 300 characters."""
    text = getattr(error, "explanation", None) or str(error)
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return " ".join(str(text).split())[:300]


def _name_and_tag(name: str) -> tuple[str, str]:
    """Without a tag the latest, not all that there are."""
    repository, colon, tag = name.rpartition(":")
    if "@" in name or not colon or "/" in tag:
        return name, "" if "@" in name else "latest"
    return repository, tag
