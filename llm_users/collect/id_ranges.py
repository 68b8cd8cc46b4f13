"""Which numbers of a long, roughly ascending sequence have come: exact, in memory that does not grow with it."""

from __future__ import annotations

from bisect import bisect_right


class SeenNumbers:
    """Whole numbers from 0, kept as ranges: as many as there are gaps, which is what is still on its way."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []  # one behind the last
        self.count = 0

    def add(self, number: int) -> bool:
        """Take a number; False when it was there already."""
        starts, ends = self._starts, self._ends
        place = bisect_right(starts, number)
        if place and number < ends[place - 1]:
            return False
        self.count += 1
        joins_left = place > 0 and ends[place - 1] == number
        joins_right = place < len(starts) and starts[place] == number + 1
        if joins_left and joins_right:
            ends[place - 1] = ends.pop(place)
            del starts[place]
        elif joins_left:
            ends[place - 1] = number + 1
        elif joins_right:
            starts[place] = number
        else:
            starts.insert(place, number)
            ends.insert(place, number + 1)
        return True

    @property
    def ranges(self) -> int:
        """How many pieces the numbers are in."""
        return len(self._starts)
