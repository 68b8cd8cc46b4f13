"""An exact set of the numbers of a long, roughly ascending sequence, in memory that does not grow with its length."""

from __future__ import annotations

from bisect import bisect_right


class SeenNumbers:
    """A set of whole numbers from 0, stored as ranges.

    The number of ranges depends only on the gaps, which are the numbers that have not arrived yet.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []  # exclusive
        self.count = 0

    def add(self, number: int) -> bool:
        """Add a number; return False when the set already contains it."""
        starts, ends = self._starts, self._ends
        index = bisect_right(starts, number)
        if index and number < ends[index - 1]:
            return False
        self.count += 1
        joins_left = index > 0 and ends[index - 1] == number
        joins_right = index < len(starts) and starts[index] == number + 1
        if joins_left and joins_right:
            ends[index - 1] = ends.pop(index)
            del starts[index]
        elif joins_left:
            ends[index - 1] = number + 1
        elif joins_right:
            starts[index] = number
        else:
            starts.insert(index, number)
            ends.insert(index, number + 1)
        return True

    @property
    def ranges(self) -> int:
        """The number of ranges."""
        return len(self._starts)
