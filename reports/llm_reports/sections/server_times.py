"""The section "Client minus server, per request": the client's latencies minus those that the server reported.

Both values are durations of the same request, so the clocks of the two machines do not have to agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.groups import Group
from llm_reports.metrics.summary import Summary, figures
from llm_reports.sections.section import Grid, Section
from llm_users.record import COL

PAIRS = (("TTFT", COL.ttft_s, COL.server_ttft_s), ("E2E", COL.end_to_end_latency_s, COL.server_latency_s))
"""The name of a figure, the client's column and the server's column."""

_FIGURES = {"mean": "Mean", "median": "Median", "p95": "P95", "p99": "P99", "min": "Min", "max": "Max"}
_NOTES = (
    "A difference is one request's time at the client minus the time that the server reported for the same request: "
    "the network, proxies, and queueing before the server's own clock starts. Only successful requests with both "
    "values count.",
    "llama.cpp starts its clock when a slot starts to process the prompt, so the wait for a slot is in the difference.",
)


@dataclass(frozen=True, slots=True)
class ServerDifference:
    """The client's figure minus the server's, over the requests of one group. Times are in seconds."""

    group: Group
    name: str
    client: Summary
    server: Summary
    difference: Summary


def server_differences(groups: Sequence[Group]) -> list[ServerDifference]:
    """Return one entry per group and figure; a group without both values in any request has none."""
    found = []
    for group in groups:
        for name, client_column, server_column in PAIRS:
            pairs = group.ok[[client_column, server_column]].dropna()
            if len(pairs):
                client, server = pairs[client_column], pairs[server_column]
                found.append(ServerDifference(group, name, figures(client), figures(server), figures(client - server)))
    return found


def server_times_section(groups: Sequence[Group]) -> Section | None:
    """Return the differences of every stage; ``None`` if no row has a time of the server."""
    differences = server_differences(groups)
    if not differences:
        return None
    names = {id(group): label or "all requests" for group, label in zip(groups, labels(groups), strict=True)}
    header = [
        "", "", "Requests", "Client mean (ms)", "Server mean (ms)",
        *(f"{figure} difference (ms)" for figure in _FIGURES.values()),
    ]  # fmt: skip
    rows = [
        [
            names[id(line.group)],
            line.name,
            str(line.difference.n),
            _ms(line.client.mean),
            _ms(line.server.mean),
            *(_ms(getattr(line.difference, figure)) for figure in _FIGURES),
        ]
        for line in differences
    ]
    return Section("Client minus server, per request", [Grid(header, rows, {0, 1}), list(_NOTES)])


def _ms(value_s: float) -> str:
    return f"{value_s * 1000:.2f}"
