"""The environment variables of a command: an allow-list, so that keys of the host never reach untrusted code."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ftagent.core.types import Stage

PASSED = ("LANG", "LANGUAGE", "TZ", "CUDA_DEVICE_ORDER", "NVIDIA_TF32_OVERRIDE")
PASSED_PREFIXES = ("LC_", "OMP_", "KMP_", "MKL_", "OPENBLAS_", "VECLIB_")
PASSED_WITH_NETWORK = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HF_ENDPOINT")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


def command_variables(
    stage: Stage,
    host: Mapping[str, str],
    *,
    home: Path,
    temporary: Path,
    path: str,
    import_roots: Iterable[Path] = (),
    allowed: Iterable[str] = (),
) -> dict[str, str]:
    """All variables that the command of `stage` sees; those of the stage win.

    `allowed` names further variables of the host that pass. `path` is the value of PATH.
    """
    passed = of_host(host, (*allowed, *(PASSED_WITH_NETWORK if stage.network else ())))
    gpus = stage.resources.gpus
    made = {
        "PATH": path,
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "USER": "ftagent",
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "CUDA_VISIBLE_DEVICES": ",".join(gpus),
    }
    if gpus:
        made["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if not stage.network:
        made["HF_HUB_OFFLINE"] = "1"
    if stage.resources.cpus:
        made.update(dict.fromkeys(THREADS, str(stage.resources.cpus)))
    result = {"LANG": "C.UTF-8", **passed, **made, **inputs(stage), **stage.variables}
    roots = [*filter(None, stage.variables.get("PYTHONPATH", "").split(os.pathsep)), *map(str, import_roots)]
    if roots:
        result["PYTHONPATH"] = os.pathsep.join(roots)
    return result


def of_host(host: Mapping[str, str], allowed: Iterable[str] = ()) -> dict[str, str]:
    """What of the host's variables reaches every command, and those that are `allowed` beside."""
    names = {*PASSED, *allowed}
    return {name: value for name, value in host.items() if name in names or name.startswith(PASSED_PREFIXES)}


def inputs(stage: Stage) -> dict[str, str]:
    """FTAGENT_INPUT_<NAME> → path for every mount; what is no letter or digit becomes `_`."""
    return {"FTAGENT_INPUT_" + re.sub(r"[^A-Z0-9]", "_", mount.name.upper()): mount.source for mount in stage.mounts}
