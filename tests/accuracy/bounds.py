"""What the accuracy of a row may be at worst. Holds for one load process on a quiet machine with two cores."""

from __future__ import annotations

from dataclasses import dataclass

SIMULATOR, NATIVE = "simulator", "native"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Upper bounds of errors and cost, lower bound of the rate. None: not judged."""

    ttft_p50_s: float
    ttft_p99_s: float
    span_p99_s: float
    cpu_per_token_s: float | None
    rate: float
    servers: tuple[str, ...]


BOUNDS = {
    1: Bounds(0.5e-3, 1e-3, 0.5e-3, None, 0.99, (SIMULATOR,)),
    32: Bounds(0.3e-3, 1e-3, 0.3e-3, 100e-6, 0.99, (SIMULATOR,)),
    256: Bounds(0.3e-3, 1e-3, 0.5e-3, 50e-6, 0.97, (SIMULATOR, NATIVE)),
    # The simulator shares two cores with the client and cannot keep its own schedule here.
    512: Bounds(0.5e-3, 5e-3, 2e-3, 42e-6, 0.95, (NATIVE,)),
}


def bounds_of(streams: int, server: str) -> Bounds | None:
    """The bounds of a row; None when there are none for this number of streams on this server."""
    bounds = BOUNDS.get(streams)
    return bounds if bounds is not None and server in bounds.servers else None
