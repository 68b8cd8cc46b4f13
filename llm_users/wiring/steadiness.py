"""Gives the side that writes the stages file the report side's verdict on whether a stage was steady."""

from __future__ import annotations

from array import array


def steadiness_of(starts: array[float], ends: array[float], measured: array[int], is_open: bool) -> str:
    """Return ``steady``, ``unsteady`` or "" (unknown). The first call, after a stage, loads numpy.

    Without a free file descriptor the import fails and the result is "", so that the stage is written in any case.
    """
    try:
        import numpy as np

        from llm_reports.metrics.steadiness import steadiness
    except (ImportError, OSError):
        return ""
    return steadiness(np.array(starts), np.array(ends), np.array(measured), is_open=is_open).state
