"""Formats the table and the result of a calibration on 80 columns. It does not depend on how a rung runs."""

from __future__ import annotations

import textwrap

from llm_users.calibration.capacity import Capacity, cores
from llm_users.calibration.ladder import Climb, Rung

_WIDTH = 80
_ROW = "{:>7}  {:>8}  {:>21}  {:>9}  {:<9}  {}"


def header() -> str:
    return _ROW.format("streams", "tokens/s", "TTFT error p50/p99 ms", "CPU share", "verdict", "judged")


def line(rung: Rung) -> str:
    """Return the table row of one rung."""
    run = rung.outcome
    if run is None:
        return _ROW.format(rung.streams, *"----", rung.judged)
    errors = f"{run.ttft_p50_s * 1e3:.2f} / {run.ttft_p99_s * 1e3:.2f}"
    return _ROW.format(
        rung.streams, f"{run.tokens_per_s:.0f}", errors, f"{run.cpu_share:.0%}", run.health or "-", rung.judged
    ).rstrip()


def no_result(climb: Climb) -> str:
    """Return why the calibration has no result."""
    lowest = min(climb.rungs, key=lambda rung: rung.streams)
    stopped = climb.stopped_by
    reason = (
        "other programs or a CPU limit kept the CPU from the worker"
        if stopped is not None and stopped.was_disturbed
        else "the simulated endpoint itself was late"
        if climb.at_least
        else f"{lowest.streams} streams were too many ({', '.join(climb.rungs[-1].faults())})"
    )
    return _wrapped(f"No result: {reason}. {_disturbed(climb)}Nothing is stored.")


def result(climb: Climb, capacity: Capacity) -> str:
    """Return the capacity, the reason why the ladder ended, and the recommended number of processes."""
    return "\n\n".join([_wrapped(f"{_found(capacity)} {_end(climb)} {_disturbed(climb)}"), _recommended(capacity)])


def _found(capacity: Capacity) -> str:
    several = capacity.processes > 1
    workers = f"{capacity.processes} workers" if several else "One worker"
    least = "at least " if capacity.at_least else ""
    return (
        f"{workers} of this machine measure{'' if several else 's'} {least}{capacity.streams} streams, "
        f"{capacity.tokens_per_s:.0f} tokens/s, with errors below {capacity.error_s * 1e3:g} ms "
        f"(a token every {capacity.gap_s * 1e3:g} ms, {capacity.tokens} per answer)."
    )


def _end(climb: Climb) -> str:
    rung = climb.stopped_by
    if rung is None:
        return "The ladder ended there; nothing failed."
    if rung.outcome is not None and rung.server_was_late:
        return (
            f"At {rung.streams} streams, the simulated endpoint itself was late "
            f"({rung.outcome.late_p99_s * 1e3:.0f} ms, p99), so that rung is not judged: the endpoint shares "
            "the machine with the worker."
        )
    if rung.was_disturbed:
        return (
            f"At {rung.streams} streams, other programs or a CPU limit kept the CPU from the worker, "
            "so that rung is not judged."
        )
    return f"{rung.streams} streams were too many: {', '.join(rung.faults())}."


def _disturbed(climb: Climb) -> str:
    if not climb.was_disturbed:
        return ""
    return (
        f"Other programs used up to {climb.others_cores:.1f} cores during the calibration. The result may be higher on "
        "a quiet machine: repeat the calibration there. "
    )


def _recommended(capacity: Capacity) -> str:
    lines = ["Recommended:"]
    for factor in (1, 2, 4):
        streams = capacity.streams * factor
        needed = capacity.processes_for(streams)
        processes = min(needed, max(cores(), capacity.processes))
        rest = f" (all cores); {needed} workers needed: add machines" if processes < needed else ""
        lines.append(f"{streams:>7} streams  --processes {processes}{rest}")
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), _WIDTH)
