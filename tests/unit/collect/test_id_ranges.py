"""The exact set of ids: each id is new once, in any order, and little memory is needed."""

from __future__ import annotations

import random

from llm_users.collect.writer import SeenNumbers


def test_numbers_are_seen_once_in_any_order() -> None:
    numbers = [*range(500), *range(0, 500, 3)]
    random.Random(7).shuffle(numbers)
    seen, known = SeenNumbers(), set()
    for number in numbers:
        assert seen.add(number) == (number not in known)
        known.add(number)
    assert (seen.starts, seen.ends) == ([0], [500])


def test_numbers_in_flight_are_all_that_is_kept() -> None:
    seen = SeenNumbers()
    for number in range(0, 100_000, 2):
        seen.add(number + 1)
        seen.add(number)
        assert len(seen.starts) <= 2
