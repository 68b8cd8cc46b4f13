"""What this machine's workers were found to carry (``llm-bench calibrate``): kept per user, held against stages.

Knows neither how it was found nor who asks; a file that is not exactly what we write is not believed.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from llm_users.collect.state_folder import read_file, replace_file, state_folder
from llm_users.options.table import CALIBRATION_VARIABLE
from llm_users.record import StageRecord

_TOLERANCE = 1.05
"""Two runs of the same load differ by some per cent in tokens/s."""

_SHORTEST_S = 1.0
"""Tokens/s of a shorter window are a burst, not a load."""

Count = Annotated[int, msgspec.Meta(ge=1, le=10**6)]
Amount = Annotated[float, msgspec.Meta(gt=0, le=10**9)]


class NoPlace(OSError):
    """There is no folder for this user's state."""


class Capacity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The most that was measured truly on a machine, and how that was asked."""

    format: Literal["locust-llm calibration 1"] = "locust-llm calibration 1"
    host: str
    cores: Count
    python: str
    version: str
    date: str
    streams: Count
    tokens_per_s: Amount
    processes: Count
    at_least: bool
    """Nothing failed: where the client ends was not found."""
    gap_s: Amount
    tokens: Count
    error_s: Amount

    @property
    def is_of_this_machine(self) -> bool:
        return (self.host, self.cores) == (socket.gethostname(), cores())

    def processes_for(self, streams: float, tokens_per_s: float = 0.0) -> int:
        """How many workers carry a load, when all carry as much as those that were measured."""
        share = max(streams / self.streams, tokens_per_s / _TOLERANCE / self.tokens_per_s)
        return max(1, math.ceil(share * self.processes))


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def place() -> Path:
    """The file: where the variable says, else in this user's folder for state."""
    named = os.environ.get(CALIBRATION_VARIABLE)
    if named:
        return Path(named)
    folder = state_folder()
    if folder is None:
        raise NoPlace(f"no home folder was found; name a file with {CALIBRATION_VARIABLE}")
    return folder / "calibration.json"


def store(capacity: Capacity) -> Path:
    """Write the file, whole or not at all; ``OSError`` when that cannot be."""
    path = place()
    replace_file(path, msgspec.json.format(msgspec.json.encode(capacity), indent=2) + b"\n")
    return path


def stored(complain: Callable[[str], None]) -> Capacity | None:
    """What was found on this machine, if anything; ``complain`` hears why a file is ignored."""
    try:
        path = place()
    except NoPlace:
        return None
    try:
        capacity = msgspec.json.decode(read_file(path), type=Capacity)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # msgspec's are ValueErrors
        why = getattr(error, "strerror", None) or str(error)
        complain(f"the calibration {path} is ignored: {why}; write it anew with llm-bench calibrate")
        return None
    return capacity if capacity.is_of_this_machine else None


def excess(stage: StageRecord, clients: Sequence[str | None], capacity: Capacity | None) -> str | None:
    """What to say when a stage asked more of the workers than they were found to carry.

    ``clients`` are those that took part, by Locust's ids (None: this process). Of processes elsewhere nothing is known.
    """
    if capacity is None or not clients or not all(map(_is_here, clients)):
        return None
    processes = len(clients)
    streams = (stage.concurrency_actual or 0.0) if stage.load.is_open else stage.load.concurrency
    long_enough = (stage.measure_s or 0.0) >= _SHORTEST_S
    tokens_per_s = stage.output_throughput_token_per_s or 0.0 if long_enough else 0.0
    needed = capacity.processes_for(streams, tokens_per_s)
    if needed <= processes:
        return None
    by_streams = capacity.processes_for(streams) == needed
    asked = f"{streams:.0f} streams" if by_streams else f"{tokens_per_s:.0f} tokens/s"
    found = f"{capacity.streams}" if by_streams else f"{capacity.tokens_per_s:.0f}"
    found += f" in {capacity.processes} processes" if capacity.processes > 1 else ""
    return (
        f"stage {stage.stage}: {asked} in {_counted(processes)}; this machine was calibrated for "
        f"{'at least ' if capacity.at_least else ''}{found} (llm-bench calibrate): {_advice(needed, processes)}"
        f"{' to be sure' if capacity.at_least else ''}"
        f"{'; other programs used its CPU too' if stage.health == 'disturbed' else ''}"
    )


def _advice(needed: int, processes: int) -> str:
    most = cores()
    if needed <= most:
        return f"use --processes {needed}"
    if processes < most:
        return f"use --processes {most}, as many as it has cores, and workers on other machines"
    return "use workers on other machines too"


def _counted(processes: int) -> str:
    return "1 process" if processes == 1 else f"{processes} processes"


def _is_here(client: str | None) -> bool:
    """Locust begins a worker's id with the name of its host."""
    return client is None or client.rpartition("_")[0] == socket.gethostname()
