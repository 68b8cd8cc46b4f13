"""The judgement on memory: leaks are seen, steps and spikes are not taken for leaks."""

from __future__ import annotations

import math
import random

from tests.system.crash.workers.growth import growth

BOUND = 200.0
MINUTES = 20


def run(kilobytes_at: list[float]) -> bool:
    return growth([float(second) for second in range(len(kilobytes_at))], kilobytes_at).exceeds(BOUND)


def noise(rng: random.Random) -> float:
    """Garbage that waits for its collection, and now and then a lot of it."""
    return rng.uniform(0, 400) + (5000 if rng.random() < 0.02 else 0)


def test_a_leak_is_seen_in_pages_and_in_heaps_that_are_extended() -> None:
    rng = random.Random(1)
    for per_min, step_kb in ((300, 4), (300, 1024), (600, 2048)):
        steady = [step_kb * (second * per_min / 60 // step_kb) for second in range(MINUTES * 60)]
        assert run([150_000 + kilobytes + noise(rng) for kilobytes in steady]), (per_min, step_kb)


def test_what_is_no_leak_passes() -> None:
    rng = random.Random(2)
    for at in range(0, MINUTES * 60, 60):
        stepped = [150_000 + (8000 if second > at else 0) + noise(rng) for second in range(MINUTES * 60)]
        assert not run(stepped), f"one step at {at} s"
    filling = [150_000 + 20_000 * (1 - math.exp(-second / 120)) + noise(rng) for second in range(MINUTES * 60)]
    assert not run(filling), "caches that fill in the first minutes"
    slow = [150_000 + second * 100 / 60 + noise(rng) for second in range(MINUTES * 60)]
    assert not run(slow), "half of the bound"


def test_the_figures_and_too_little_to_say() -> None:
    steady = growth([float(second) for second in range(1200)], [second * 5.0 for second in range(1200)])
    assert round(steady.per_min) == 300
    assert round(steady.at_least_per_min) == 300
    assert growth([0.0, 1.0], [1.0, 9.0]).at_least_per_min == -math.inf
    assert growth([], []).at_least_per_min == -math.inf
