"""The section "For a quota request": what the forms of cloud providers ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llm_reports.metrics.quota import WINDOW_S, Quota, quotas
from llm_reports.run import Run
from llm_reports.sections.section import Grid, Section


def quota_section(runs: Sequence[Run]) -> Section | None:
    """Return requests and tokens per minute of every model; ``None`` without requests."""
    found = quotas(runs)
    if not found:
        return None
    several_runs = len({quota.run for quota in found}) > 1
    names = ["Run", "Model"] if several_runs else ["Model"]
    header = [*names, "Amount", "Peak per minute", "Steady per minute", "Mean", "P95"]
    rows = [
        [
            *([quota.run.name] if several_runs else []), quota.model or "-", amount.name, _whole(amount.peak),
            _whole(amount.steady), _whole(amount.mean), _whole(amount.p95),
        ]
        for quota in found
        for amount in quota.amounts
    ]  # fmt: skip
    left = set(range(len(names) + 1))
    return Section("For a quota request", [Grid(header, rows, left), _notes(found)])


def _notes(found: Sequence[Quota]) -> list[str]:
    notes = [
        "Peak: the largest sum in any 60 s, over all requests that were sent, warm-ups included. Steady: the mean over "
        "the window of the stage with the most requests per minute. A request counts when it is sent. Mean and P95 are "
        "per request.",
    ]
    if short := [quota for quota in found if quota.is_extrapolated]:
        least = min(quota.sent_s for quota in short)
        notes.append(
            f"Requests were sent for less than {WINDOW_S:.0f} s ({least:.3g} s), so the peak is extrapolated from the "
            "mean rate. Measure for some minutes before you ask for a quota."
        )
    notes.append(
        "Throttled: "
        + "; ".join(
            f"{quota.throttled} of {quota.requests} requests{f' ({quota.model})' if len(found) > 1 else ''}"
            for quota in found
        )
        + ". With throttled requests, the peak shows the present quota, not the demand."
        if any(quota.throttled for quota in found)
        else "No request was throttled."
    )
    return notes


def _whole(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else "-"
