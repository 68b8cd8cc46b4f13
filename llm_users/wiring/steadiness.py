"""The report side's verdict on whether a stage was steady, for the side that writes the stages file."""

from __future__ import annotations

from array import array


def steadiness_of(starts: array[float], ends: array[float], measured: array[int], is_open: bool) -> str:
    """``steady``, ``unsteady`` or "" (unknown). Loads numpy at the first call, when a stage is over.

    Without a free file descriptor nothing can be loaded: the stage is written all the same.
    """
    try:
        import numpy as np

        from llm_reports.metrics.steadiness import steadiness
    except (ImportError, OSError):
        return ""
    return steadiness(np.array(starts), np.array(ends), np.array(measured), is_open=is_open).state
