"""Whether TTFT and latency of a group include the time to connect.

LLMPerf opens a connection for each request and includes it. A run of this tool includes it with ``--count-connect``,
if its requests opened connections (``--llm-new-connections``). A written LLMPerf summary has the answer under
``CONNECT_KEY``; a summary without this key is LLMPerf's own.
"""

from __future__ import annotations

from enum import StrEnum

from llm_reports.metrics.stage_group import StageGroup

CONNECT_KEY = "connect_time"


class Connecting(StrEnum):
    """The share of the requests whose figures include the time to connect; the values are those of ``CONNECT_KEY``."""

    INCLUDED = "included"
    PARTLY = "partly included"
    NOT = "not included"


def connecting(group: StageGroup) -> Connecting:
    """Return whether the figures of the successful requests of a group include the time to connect."""
    if group.run.foreign:
        stated = group.run.manifest.get(CONNECT_KEY)
        return Connecting(stated) if stated in list(Connecting) else Connecting.INCLUDED
    if not group.count_connect:
        return Connecting.NOT
    if group.counts.ok and not group.facts.connected:
        return Connecting.NOT
    return Connecting.INCLUDED if group.facts.connected == group.counts.ok else Connecting.PARTLY
