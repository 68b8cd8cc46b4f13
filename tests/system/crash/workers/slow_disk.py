"""A disk that is slow or does not answer, and a run that writes its rows to it."""

from __future__ import annotations

import csv
import fcntl
import os
import time
from pathlib import Path

from llm_users.simulator.launch import Simulator
from tests.system.locust_runs import Finished, Locust

SWEEP = ("--llm-sweep", "4", "--llm-requests", "60", "--llm-output-tokens", "15,0", "--llm-warmup", "0")


class Pipe:
    """A rows file that is a pipe of 4 KiB: what the test does not read waits, as on a disk that does not answer."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        os.mkfifo(path)
        self.descriptor = os.open(path, os.O_RDWR)
        fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, 4096)
        self.text = b""

    def read_after(self, delay_s: float) -> None:
        time.sleep(delay_s)
        os.set_blocking(self.descriptor, False)
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            try:
                self.text += os.read(self.descriptor, 65536)
            except BlockingIOError:
                time.sleep(0.02)

    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(self.text.decode().splitlines()))


def run_on(folder: Path, endpoint: Simulator, *more: str) -> tuple[Finished, float]:
    locust = Locust(folder)
    began = time.monotonic()
    done = locust.run("--host", endpoint.url, *SWEEP, *more, env={"TMPDIR": str(folder)})
    return done, time.monotonic() - began
