"""A real language model behind OpenAI's protocol on loopback: SmolLM2-135M by llama.cpp, in a process of its own.

with local_model() as url: ...
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from ftagent_llm.models import find_packaged_weights, list_models

ALIAS = "smollm2-135m"
CONTEXT_TOKENS = 2048


@contextlib.contextmanager
def local_model() -> Iterator[str]:
    """The address, ending in /v1. Raises RequestError when the weights are not installed."""
    weights = find_packaged_weights(next(entry for entry in list_models() if entry.alias == ALIAS))
    command = [sys.executable, __file__, str(weights)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            for line in server.stdout:
                # llama.cpp may say something of its own first.
                if line.startswith(b"http"):
                    yield f"{line.decode().strip()}/v1"
                    return
            raise AssertionError("the server of the local model did not start")
        finally:
            server.stdin.close()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def serve(weights: str) -> None:
    """Until standard input ends."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = weights
    parameters.model_alias = {ALIAS}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = 1
    # More threads wait for each other in a loop, which takes seconds per token when the cores are busy.
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1])
