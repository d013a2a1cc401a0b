"""Whether every weight is a number."""

from __future__ import annotations

from ftagent.toolkit.checking.findings import Finding, fault, listed, ok, one_line
from ftagent.toolkit.checking.weights import Weights


def check_values(weights: Weights) -> list[Finding]:
    """Read all weights, one tensor at a time, and look for NaN and infinity."""
    import torch
    from safetensors import SafetensorError, safe_open

    bad: dict[str, int] = {}
    for path in weights.files:
        try:
            with safe_open(path, framework="pt") as stream:
                for name in stream.keys():  # noqa: SIM118  # the stream is no mapping
                    tensor = stream.get_tensor(name)
                    if tensor.is_floating_point():
                        wrong = tensor.numel() - int(torch.isfinite(tensor.float()).sum())
                        bad |= {name: wrong} if wrong else {}
        except (SafetensorError, OSError) as error:
            return [fault("values", f"{path.name}: {one_line(error)}", "download the file again")]
    if bad:
        text = f"{sum(bad.values())} weights are NaN or infinite, in {listed(bad)}"
        return [fault("values", text, "finite numbers: train again with a lower learning rate, or download again")]
    return [ok("values", f"all {weights.parameters} weights are finite")]
