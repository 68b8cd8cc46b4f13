"""The trace of a run as its options say, in the coordinator and in every load process alike."""

from __future__ import annotations

from llm_users.options.table import Options
from llm_users.prompts import Trace, read_trace


def trace_of(options: Options) -> Trace | None:
    """Read the trace, if the run has one. Takes seconds for a million rows: not for an event loop."""
    if options.trace is None:
        return None
    return read_trace(
        options.trace,
        speed=options.trace_speed,
        window=options.trace_window,
        unit=options.trace_unit,
        block_tokens=options.trace_block_size,
    )
