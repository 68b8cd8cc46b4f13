"""llama.cpp's own HTTP server, from the wheel `xllamacpp`, on a free port of 127.0.0.1.

    python llama_server.py MODEL.gguf SLOTS

Prints its address as one line when it can answer. It ends with its standard input, so it cannot outlive whoever
started it. Must not import the project.
"""

from __future__ import annotations

import os
import sys

import xllamacpp

CONTEXT_PER_SLOT = 2048


def main(model: str, slots: int) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {"smollm2-135m"}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = slots
    params.n_ctx = CONTEXT_PER_SLOT * slots
    # Several wait for each other by spinning: where the cores are shared that is slower than one.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.endpoint_metrics = True
    params.use_jinja = True
    params.offline = True
    server = xllamacpp.Server(params)
    print(f"listening on {server.listening_address}", flush=True)
    sys.stdin.read()
    os._exit(0)  # its threads do not end by themselves


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
