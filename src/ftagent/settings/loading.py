"""Reading the sources once: environment over `.env` over defaults, with the origin of every value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from ftagent.core.errors import RequestError
from ftagent.settings import dotenv
from ftagent.settings.classes import (
    ChatSettings,
    DeviceSettings,
    EnvironmentSettings,
    FleetSettings,
    Group,
    HubSettings,
    LoopSettings,
    TabularSettings,
)
from ftagent.settings.finetune import FineTuneSettings
from ftagent.settings.variables import Variable, declared

GROUPS: dict[str, type[Group]] = {
    "chat": ChatSettings,
    "loop": LoopSettings,
    "hub": HubSettings,
    "finetune": FineTuneSettings,
    "tabular": TabularSettings,
    "fleet": FleetSettings,
    "environments": EnvironmentSettings,
    "device": DeviceSettings,
}
_OURS = ("FT_", "DS_", "FTAGENT_")
# Read elsewhere: by the tests and by fault injection.
_INTERNAL = ("FTAGENT_REQUIRE", "FTAGENT_FAILPOINT", "FTAGENT_TEST_", "FTAGENT_INPUT_")
_CREDENTIAL = re.compile(
    r"[A-Z0-9_]+_(API_KEY|API_BASE|API_VERSION|BASE_URL|API_TOKEN|AUTH_TOKEN|AD_TOKEN|APIKEY)"
    r"|AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|REGION_NAME|PROFILE_NAME|BEARER_TOKEN_BEDROCK)"
    r"|GOOGLE_APPLICATION_CREDENTIALS"
    r"|(VERTEXAI|VERTEX|WATSONX|WX|DATABRICKS)_[A-Z_]+"
)
_PENDING_ENVIRONMENTS = ("ray",)
_SECRET = re.compile(r"key|token|secret|password|authorization|credential|headers?$", re.IGNORECASE)
_COUNT = re.compile(r"tokens$|_per_token$", re.IGNORECASE)
_G = TypeVar("_G", bound=Group)


@dataclass(frozen=True)
class Value:
    """One effective value, for people: `shown` has secrets redacted. `origin` says where it came from."""

    variable: Variable
    field: str
    value: Any
    shown: Any
    origin: str

    @property
    def is_default(self) -> bool:
        return self.origin == "default"


@dataclass(frozen=True)
class Settings:
    """Everything users set, by part. Loaded once, passed in, never global."""

    chat: ChatSettings
    loop: LoopSettings
    hub: HubSettings
    finetune: FineTuneSettings
    tabular: TabularSettings
    fleet: FleetSettings
    environments: EnvironmentSettings
    device: DeviceSettings
    values: tuple[Value, ...] = ()
    """Every variable, in the order of `.env.example`."""
    credentials: Mapping[str, SecretStr] = field(default_factory=dict)
    """Keys and addresses of providers, by the names that LiteLLM reads."""
    notes: tuple[str, ...] = ()
    """One line for each variable that is set without effect."""
    env_file: Path | None = None

    def origin(self, name: str) -> str:
        """Where the value of variable `name` came from."""
        return next(value.origin for value in self.values if name in value.variable.names)


def load(env_file: str | None, environ: Mapping[str, str], start: Path) -> Settings:
    """The settings in effect in folder `start`.

    Raises RequestError for a `.env` that cannot be read and for a value that is not valid.
    """
    path = dotenv.find(env_file, start)
    raw = _Sources(path, dotenv.read(path, environ) if path else {}, _upper(environ))
    groups = {name: _build(cls, raw) for name, cls in GROUPS.items()}
    values = tuple(value for group in groups.values() for value in _values(group, raw))
    return Settings(
        **groups,  # type: ignore[arg-type]  # the keys of GROUPS are the fields
        values=values,
        credentials=_credentials(raw, values),
        notes=(*_warnings(values), *_unknown(raw, values)),
        env_file=path,
    )


@dataclass(frozen=True)
class _Sources:
    path: Path | None
    file: Mapping[str, str]
    environ: Mapping[str, str]

    def merged(self, cls: type[Group] | None = None) -> dict[str, str]:
        """What is set, by name in upper case. An empty value means not set."""
        file = {name: value for name, value in self.file.items() if value.strip()}
        environ = {name: value for name, value in self.environ.items() if value.strip()}
        for info in cls.model_fields.values() if cls else ():
            names = declared(info).names
            if any(name in environ for name in names):
                # Whichever of a variable's names the environment uses, it wins over every name in the file.
                file = {name: value for name, value in file.items() if name not in names}
        return file | environ

    def origin(self, names: tuple[str, ...]) -> str:
        if any(self.environ.get(name, "").strip() for name in names):
            return "environment"
        return str(self.path) if any(self.file.get(name, "").strip() for name in names) else "default"


def _upper(environ: Mapping[str, str]) -> dict[str, str]:
    return {name.upper(): value for name, value in environ.items()}


def _build(cls: type[_G], raw: _Sources) -> _G:
    source = EnvSettingsSource(cls, case_sensitive=False, env_ignore_empty=True)
    source.env_vars = {name.lower(): value for name, value in raw.merged(cls).items()}
    try:
        return cls(**source())
    except SettingsError as error:
        name = next((n for n in cls.model_fields if f'"{n}"' in str(error)), "")
        variable = declared(cls.model_fields[name]) if name else None
        what = variable.name if variable else str(error)
        where = raw.origin(variable.names) if variable else str(raw.path)
        shape = variable.description if variable else "JSON"
        raise RequestError(f"{what} ({where}): not valid JSON; {shape}") from error
    except ValidationError as error:
        raise RequestError(_problem(cls, error, raw)) from error


def _problem(cls: type[Group], error: ValidationError, raw: _Sources) -> str:
    first = error.errors()[0]
    variable = _variable_at(cls, str(first["loc"][0]))
    message = str(first["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return f"{variable.name} ({raw.origin(variable.names)}): {message}; {variable.description}"


def _variable_at(cls: type[Group], location: str) -> Variable:
    for name, info in cls.model_fields.items():
        variable = declared(info)
        if location.upper() in variable.names or location == name:
            return variable
    raise KeyError(location)


def _values(group: Group, raw: _Sources) -> list[Value]:
    found = []
    for name, info in type(group).model_fields.items():
        value = getattr(group, name)
        variable = declared(info)
        found.append(Value(variable, name, value, shown(value), raw.origin(variable.names)))
    return found


def is_secret(name: str) -> bool:
    """Whether an option of this name holds what only its provider may know."""
    return bool(_SECRET.search(name)) and not _COUNT.search(name)


def shown(value: Any) -> Any:
    """A value as people may see it, in JSON's types: a secret is only `set`, and so is a password in an address."""
    if isinstance(value, SecretStr):
        return "set"
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [shown(item) for item in value]
    if isinstance(value, dict):
        return {key: "set" if is_secret(str(key)) else shown(item) for key, item in value.items()}
    if isinstance(value, str):
        return re.sub(r"(://)[^/@\s]+@", r"\1***@", value)
    return value


def _warnings(values: tuple[Value, ...]) -> list[str]:
    notes = []
    for value in values:
        if value.is_default:
            continue
        if value.variable.warning:
            notes.append(value.variable.warning)
        elif value.variable.name == "FT_CODER_COSTEER_ENV_TYPE" and value.value in _PENDING_ENVIRONMENTS:
            notes.append(f"{value.variable.name}={value.value} is accepted but not there yet: auto is used")
    return notes


def _unknown(raw: _Sources, values: tuple[Value, ...]) -> list[str]:
    """A note for each name with one of our prefixes that no part knows: most likely misspelt."""
    known = [name for value in values for name in value.variable.names]
    notes = []
    for name in sorted(raw.merged()):
        if name.startswith(_OURS) and name not in known and not name.startswith(_INTERNAL):
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "`ftagent config show` lists all names"
            notes.append(f"{name} is no setting of ftagent; {hint}")
    return notes


def _credentials(raw: _Sources, values: tuple[Value, ...]) -> dict[str, SecretStr]:
    ours = {name for value in values for name in value.variable.names if name.startswith(_OURS)}
    return {
        name: SecretStr(value)
        for name, value in sorted(raw.merged().items())
        if _CREDENTIAL.fullmatch(name) and name not in ours
    }
