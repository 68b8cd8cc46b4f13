"""The section "Replicas for RATE requests/s" (``llm-report --peak RATE``)."""

from __future__ import annotations

from llm_reports.sections.section import Grid, Section
from llm_reports.slo.sizing import HEADROOM, Sizing


def sizing_section(sizing: Sizing) -> Section:
    """Return the replicas for the peak rate, or the reason why the runs do not show them."""
    title = f"Replicas for {sizing.peak_per_s:g} requests/s"
    confirmed, fails = sizing.confirmed_per_s, sizing.fails_per_s
    measured = ", ".join(f"{rate:g}" for rate in sizing.rates_per_s)
    if not sizing.rates_per_s:
        return Section(
            title,
            ["The runs have no rates with a verdict: use `--llm-find` with `--llm-rate LOW,HIGH`, or give `--slo`."],
        )
    if confirmed is None:
        below = f" The lowest rate that fails is {fails:g}/s." if fails else ""
        return Section(
            title,
            [f"No rate is confirmed to meet the objectives (measured: {measured}/s).{below} Measure lower rates, or "
             "run longer stages."],
        )  # fmt: skip
    free = f"{100 * HEADROOM:g} %"
    rows = [
        [f"With {free} headroom", f"{confirmed * (1 - HEADROOM):.3g}", f"**{sizing.replicas_with_headroom}**"],
        ["At the confirmed rate", f"{confirmed:g}", str(sizing.replicas)],
    ]
    if fails is not None:
        rows.append(["At the upper end of the bracket", f"{fails:g}", str(sizing.fewest)])
        how = "exceeds a limit by its figures, but its verdict is undecided" if sizing.fails_by_figures else "failed"
        bracket = f"The bracket is {confirmed:g} to {fails:g} requests/s: the lower end passed, the upper end {how}."
    else:
        bracket = f"No measured rate failed, so a replica may sustain more than {confirmed:g} requests/s."
    notes = [
        bracket,
        *_undecided(sizing),
        f"Confirmed rate: {confirmed:g} requests/s per replica (measured: {measured}/s).",
        f"Headroom: each replica gets {100 * (1 - HEADROOM):g} % of the confirmed rate, because random arrivals are "
        "bursty.",
    ]
    return Section(title, [Grid(["", "Requests/s per replica", "Replicas"], rows, {0}), notes])


def _undecided(sizing: Sizing) -> list[str]:
    """Return a note on the undecided rates inside the bracket, which make it wide."""
    if not sizing.undecided_per_s:
        return []
    rates = ", ".join(f"{rate:g}" for rate in sizing.undecided_per_s)
    return [f"Undecided rates inside the bracket: {rates}/s. Longer stages at these rates narrow it."]
