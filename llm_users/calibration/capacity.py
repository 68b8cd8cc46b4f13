"""The calibrated capacity of this machine's workers (``llm-bench calibrate``): stored per user, compared with stages.

It does not depend on how the capacity is measured. A file that does not match the format exactly is ignored.
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
"""Two runs of the same load differ by a few per cent in tokens/s."""

_SHORTEST_S = 1.0
"""Shortest window in seconds: tokens/s of a shorter window describe a burst, not a load."""

Count = Annotated[int, msgspec.Meta(ge=1, le=10**6)]
Amount = Annotated[float, msgspec.Meta(gt=0, le=10**9)]


class NoPlace(OSError):
    """The user has no state folder."""


class Capacity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The highest load that a machine measured accurately, and the settings of the calibration."""

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
    """True when no rung failed because of the client, so that its limit is unknown."""
    gap_s: Amount
    tokens: Count
    error_s: Amount

    @property
    def is_of_this_machine(self) -> bool:
        return (self.host, self.cores) == (socket.gethostname(), cores())

    def processes_for(self, streams: float, tokens_per_s: float = 0.0) -> int:
        """Return the number of workers for a load, if every worker carries as much as the calibrated ones."""
        share = max(streams / self.streams, tokens_per_s / _TOLERANCE / self.tokens_per_s)
        return max(1, math.ceil(share * self.processes))


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def place() -> Path:
    """Return the path of the file: from the environment variable, otherwise in the user's state folder.

    Raises ``NoPlace`` when there is neither.
    """
    configured = os.environ.get(CALIBRATION_VARIABLE)
    if configured:
        return Path(configured)
    folder = state_folder()
    if folder is None:
        raise NoPlace(f"there is no home folder; set {CALIBRATION_VARIABLE} to the path of a file")
    return folder / "calibration.json"


def store(capacity: Capacity) -> Path:
    """Write the file atomically and return its path. Raises ``OSError`` when that is not possible."""
    path = place()
    replace_file(path, msgspec.json.format(msgspec.json.encode(capacity), indent=2) + b"\n")
    return path


def stored(complain: Callable[[str], None]) -> Capacity | None:
    """Return the stored capacity of this machine, or None. Call ``complain`` with the reason when a file is ignored."""
    try:
        path = place()
    except NoPlace:
        return None
    try:
        capacity = msgspec.json.decode(read_file(path), type=Capacity)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        reason = getattr(error, "strerror", None) or str(error)
        complain(f"the calibration file {path} is ignored: {reason}; run llm-bench calibrate to replace it")
        return None
    return capacity if capacity.is_of_this_machine else None


def excess(stage: StageRecord, clients: Sequence[str | None], capacity: Capacity | None) -> str | None:
    """Return a warning when the load of a stage exceeds the calibrated capacity of its workers, otherwise None.

    ``clients`` are the participating workers by Locust's ids (None: this process). The capacity of workers on other
    machines is unknown, so a stage with such workers gets no warning.
    """
    # Locust starts a worker's id with its host name.
    is_here = all(client is None or client.rpartition("_")[0] == socket.gethostname() for client in clients)
    if capacity is None or not clients or not is_here:
        return None
    processes = len(clients)
    streams = (stage.concurrency_actual or 0.0) if stage.load.is_open else stage.load.concurrency
    long_enough = (stage.measure_s or 0.0) >= _SHORTEST_S
    tokens_per_s = stage.output_throughput_token_per_s or 0.0 if long_enough else 0.0
    needed = capacity.processes_for(streams, tokens_per_s)
    if needed <= processes:
        return None
    by_streams = capacity.processes_for(streams) == needed
    load = f"{streams:.0f} streams" if by_streams else f"{tokens_per_s:.0f} tokens/s"
    calibrated = f"{capacity.streams}" if by_streams else f"{capacity.tokens_per_s:.0f}"
    calibrated += f" in {capacity.processes} processes" if capacity.processes > 1 else ""
    available = cores()
    advice = "also use workers on other machines"
    if needed <= available:
        advice = f"use --processes {needed}"
    elif processes < available:
        advice = f"use --processes {available}, one per core, and workers on other machines"
    return (
        f"stage {stage.stage}: {load} in {processes} process{'es' if processes > 1 else ''}; this machine was "
        f"calibrated for {'at least ' if capacity.at_least else ''}{calibrated} (llm-bench calibrate): {advice}"
        f"{' to be sure' if capacity.at_least else ''}"
        f"{'; other programs also used its CPU' if stage.health == 'disturbed' else ''}"
    )
