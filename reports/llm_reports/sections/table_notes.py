"""The notes below a table: conditions that affect how far a reader can trust a figure, and remedies.

A note occurs once and lists the rows that it applies to, so that a sweep of twenty stages does not repeat it.
"""

from __future__ import annotations

from collections.abc import Sequence

from llm_reports.llmperf.connecting import Connecting, connecting
from llm_reports.metrics.distinctions import entry_names, labels
from llm_reports.metrics.groups import CORRECTED_TTFT, LLMPERF_TTFT, TPOT, TTFT, Metric
from llm_reports.metrics.stage_group import StageGroup
from llm_reports.metrics.summary import Summary
from llm_reports.stats.intervals import values_needed
from llm_users.record import UNSTEADY

# With fewer than 1 / (1 - q) values, a percentile is close to the largest (or smallest) of them.
_VALUES_NEEDED = (("P99", 100), ("P95", 20), ("P25 and P75", 4))
_FIRST_TOKEN = (TTFT, CORRECTED_TTFT)
_OF_A_STREAM = (*_FIRST_TOKEN, LLMPERF_TTFT, TPOT)
_CACHED_SHARE = 0.05  # share of the input tokens above which the prefix cache of the server affects TTFT
_LATE = (
    "Requests were sent late, so `queue_s`, the load, latencies from the intended start, and a TTFT whose send was "
    "interrupted include this delay. Arrivals that the kernel stamped are not late; those with `stamp_source` user are."
)
_HEALTH_NOTES = {
    "saturated": f"The client was saturated: the load generator was the limit. {_LATE} Add workers or lower the load",
    "disturbed": "The client was disturbed: other programs or a CPU limit took CPU time from the load generator. "
    f"{_LATE} Use a quieter machine or dedicated cores",
    "strained": "The client was strained: part of the tail may be the load generator's own delay."
    " Consider more workers",
}
_UNSTEADY_NOTE = (
    "The stage was unsteady: its queue grew through the window, so its figures grow with the length of the "
    "measurement. Lower the load, or measure longer if the server was still warming up"
)

NOT_STREAMED = (
    "Answers that were not streamed (`--llm-no-stream`, or `stream=False` in a call) have an end-to-end latency, but "
    "no time to first token, TPOT and gaps"
)

# Notes in the manifest that affect whether the figures can be trusted, identified by words that they contain.
_RUN_NOTES = (
    "--llm-insecure",
    "was lost in stage",
    "had started were lost",
    "requests were not started",
    "the window was widened",
    "were sent again on a new connection",
    "could not connect in stage",
    "client_limit",
    "output tokens are not counted by the client",
    "requests may wait for their counts",
    "answers have no output_tokens_counted",
    "requests are redirected",
    "of classes that do not send LLM requests",
    "mix different numbers of users",
    "machine was calibrated for",
    "empty and is skipped",
    "empty and are skipped",
    "with a recorded answer, which is not sent",
    "its times are read as",
    "its hashes stand for",
    "a prefix cache may answer them",
)


def notes_under(metric: Metric, groups: Sequence[StageGroup], figures: Sequence[Summary]) -> tuple[str, ...]:
    """Return the notes for a table of one metric, in a fixed order."""
    notes = Notes(groups)
    if not groups:
        return ("No request was measured.",)
    notes.add("No measured request succeeded, so there are no figures", [_nothing_succeeded(group) for group in groups])
    for kind, attribute, codes in (("Throttled", "throttled", "throttles"), ("Failed", "failed_otherwise", "errors")):
        counted = [(group.counts, getattr(group.counts, attribute)) for group in groups]
        shares = [
            f"{_share(count, counts.measured)}, {_codes(getattr(counts, codes))}" if counts.ok and count else ""
            for counts, count in counted
        ]
        notes.add(f"{kind} requests are excluded", shares)
    notes.add(
        "Requests over the limit --llm-max-in-flight were dropped and count as failed",
        [_share(group.counts.dropped, group.counts.measured) for group in groups],
    )
    notes.add(
        "Requests waited because of the limit --llm-max-in-flight and were sent later than scheduled",
        [_share(group.facts.held, group.counts.measured) for group in groups],
    )
    notes.add(
        "Aborted requests (interrupted by the end of the stage or the test) are excluded",
        [_share(group.counts.aborted, group.counts.measured) if group.counts.ok else "" for group in groups],
    )
    notes.add(
        "Cancelled requests (ended by the client, --llm-cancel) are excluded; this makes fast requests slightly more "
        "frequent among the others",
        [_share(group.counts.cancelled, group.counts.measured) if group.counts.ok else "" for group in groups],
    )
    notes.add(
        "Requests outside the measured phase are excluded",
        [_phases(group) if group.counts.ok else "" for group in groups],
    )
    for health, text in _HEALTH_NOTES.items():
        notes.mark(text, [group.health == health for group in groups])
    notes.mark(_UNSTEADY_NOTE, [group.steadiness == UNSTEADY for group in groups])
    notes.add(
        "The load was below 95 % of the requested load",
        [group.shortfall.text if group.shortfall is not None else "" for group in groups],
    )
    for words in _RUN_NOTES:
        matching = [[note for note in group.run.manifest.get("notes", ()) if words in str(note)] for group in groups]
        notes.add("The run notes", ["; ".join(map(str, of_run)) for of_run in matching])
    _add_sources(notes, metric, groups)
    notes.add(
        "Successful requests without this value are excluded",
        [_without_value(metric, group, summary) for group, summary in zip(groups, figures, strict=True)],
    )
    for percentile, needed in _VALUES_NEEDED:
        notes.add(
            f"{percentile} of fewer than {needed} values is not reliable",
            [f"{summary.n} values" if 0 < summary.n < needed else "" for summary in figures],
        )
    needed = values_needed(0.99)
    notes.add(
        f"A 95 % interval of a P99 requires at least {needed} values ({values_needed(0.95)} for a P95); for a stable "
        "percentile, measure at least this number of requests per stage",
        [str(summary.n) if 0 < summary.n < needed else "" for summary in figures],
        unit="values",
    )
    return tuple(notes.lines)


class Notes:
    """Collects notes. A note lists the rows that it applies to, unless it applies to all rows."""

    def __init__(self, groups: Sequence[StageGroup]) -> None:
        self.lines: list[str] = []
        self._labels = labels(groups)

    def add(self, text: str, details: Sequence[str], *, unit: str = "") -> None:
        """Add a note with a detail for each row that it applies to; "" for the other rows.

        The details are in parentheses. With ``unit``, they are counts, and the note ends with clauses such as ``a has
        20, b and c have 150``.
        """
        concerned = [(label, detail) for label, detail in zip(self._labels, details, strict=True) if detail]
        if not concerned:
            return
        if len(concerned) == len(self._labels) and len({detail for _, detail in concerned}) == 1:
            several = "each row, " if len(concerned) > 1 else ""
            self.lines.append(f"{text}: {several}{concerned[0][1]}{unit and f' {unit}'}.")
        else:
            labels_of: dict[str, list[str]] = {}
            for label, detail in concerned:
                labels_of.setdefault(detail, []).append(label)
            if unit:
                clauses = [f"{_with_verb(names)} {detail}" for detail, names in labels_of.items()]
            else:
                clauses = [f"{', '.join(names)} ({detail})" for detail, names in labels_of.items()]
            self.lines.append(f"{text}: {(', ' if unit else '; ').join(clauses)}.")

    def mark(self, text: str, concerned: Sequence[bool]) -> None:
        """Add a note without details for the rows that it applies to."""
        names = [label for label, mark in zip(self._labels, concerned, strict=True) if mark]
        if len(names) == len(self._labels):
            self.lines.append(f"{text}.")
        elif names:
            self.lines.append(f"{text}: {'; '.join(names)}.")


def _add_sources(notes: Notes, metric: Metric, groups: Sequence[StageGroup]) -> None:
    """Add the notes about the sources of the figures that matter for the metric."""
    if metric in _OF_A_STREAM:
        notes.add(NOT_STREAMED, [_share(group.facts.unstreamed, group.counts.ok) for group in groups])
    if metric in _FIRST_TOKEN:
        notes.add(
            "Answers that arrived all at once (`buffered`) do not have a time to first token. Check that streaming is "
            "enabled in the server and in every proxy",
            [_share(group.facts.buffered, group.counts.ok) for group in groups],
        )
        notes.add(
            "A gateway buffers the stream: answers arrived in large bursts (`burst_chunks`), so their time to first "
            "token includes the wait in a buffer, and their TPOT and chunk gaps do not show the server. Turn off "
            "buffering in each proxy, or measure behind the proxies",
            [_held_back(group) for group in groups],
        )
        notes.add(
            "The process took the arrival timestamps (`user`), so they include its own delay",
            [_share(group.facts.user_stamps, group.counts.ok) for group in groups],
        )
        notes.add(
            "Input tokens came from the server's cache, which shortens the time to first token",
            [_cached(group) for group in groups],
        )
    else:
        notes.add(
            "Output tokens were counted by the local tokenizer, not by the server",
            [_share(group.facts.local_token_counts, group.counts.ok) for group in groups],
        )
        notes.add(
            "The usage of the server and the client's count of the visible output differ by more than 5 %",
            [group.facts.count_difference for group in groups],
        )
    if groups[0].count_connect:
        _add_connecting(notes, groups)
        without = [0 if group.run.foreign else group.facts.without_connect for group in groups]
        shares = [_share(count, group.counts.ok) for group, count in zip(groups, without, strict=True)]
        notes.add("Rows without connect_s count with 0", shares)


def _add_connecting(notes: Notes, groups: Sequence[StageGroup]) -> None:
    """Add which figures ``--count-connect`` changed, and why it could not change the others."""
    kinds = [connecting(group) for group in groups]
    own = [not group.run.foreign for group in groups]
    notes.mark(
        "TTFT and latency include the connection time (--count-connect)",
        [mine and kind is not Connecting.NOT for mine, kind in zip(own, kinds, strict=True)],
    )
    notes.add(
        "Some requests used a connection that was already open, so their TTFT has no connection time; measure again "
        "with --llm-new-connections",
        [
            _share(group.facts.reused, group.counts.ok) if mine and kind is Connecting.PARTLY else ""
            for group, mine, kind in zip(groups, own, kinds, strict=True)
        ],
    )
    names = entry_names(groups)

    def concerned(*, foreign: bool, kind: Connecting) -> list[str]:
        pairs = zip(names, groups, own, kinds, strict=True)
        return list(
            dict.fromkeys(
                name
                for name, group, mine, own_kind in pairs
                if mine is not foreign and own_kind is kind and (foreign or group.facts.reused)
            )
        )

    if still_open := concerned(foreign=False, kind=Connecting.NOT):
        whose = "their" if len(still_open) > 1 else "its"
        notes.lines.append(
            f"The connections of {listed(still_open)} stayed open, so {whose} TTFT has no connection time; measure "
            "again with --llm-new-connections."
        )
    if included := concerned(foreign=True, kind=Connecting.INCLUDED):
        notes.lines.append(
            f"LLMPerf's files already include the connection time, so nothing was added: {listed(included)}."
        )
    if absent := [*concerned(foreign=True, kind=Connecting.NOT), *concerned(foreign=True, kind=Connecting.PARTLY)]:
        notes.lines.append(
            f"The files of {listed(absent)} were written without the connection time of all requests, and it cannot be "
            "added; write them again from the rows of a run with --llm-new-connections, with --count-connect."
        )


def listed(names: Sequence[str]) -> str:
    """Return names for a sentence: ``a, b and c``."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _with_verb(names: Sequence[str]) -> str:
    return f"{listed(names)} {'have' if len(names) > 1 else 'has'}"


def _nothing_succeeded(group: StageGroup) -> str:
    counts = group.counts
    if counts.ok:
        return ""
    reasons = f". Errors: {group.facts.failure_reasons}" if group.facts.failure_reasons else ""
    if not counts.measured:
        return ", ".join(filter(None, ["no request was measured", _phases(group)])) + reasons
    parts = [
        f"{counts.throttled} throttled with {_codes(counts.throttles)}" if counts.throttled else "",
        f"{counts.failed_otherwise} failed with {_codes(counts.errors)}" if counts.failed_otherwise else "",
        f"{counts.aborted} aborted" if counts.aborted else "",
        f"{counts.cancelled} cancelled" if counts.cancelled else "",
    ]
    return f"of {counts.measured}: {', '.join(filter(None, parts))}{reasons}"


def _codes(errors: Sequence[tuple[str, int]]) -> str:
    shown = ", ".join(f"{code}: {count}" for code, count in errors[:4])
    return shown + (f", {len(errors) - 4} other codes" if len(errors) > 4 else "")


def _phases(group: StageGroup) -> str:
    return ", ".join(f"{count} in {phase or 'an unnamed phase'}" for phase, count in group.counts.unmeasured_phases)


def _without_value(metric: Metric, group: StageGroup, summary: Summary) -> str:
    without_stream = group.facts.buffered if metric in _FIRST_TOKEN else 0
    without_stream += group.facts.unstreamed if metric in _OF_A_STREAM else 0
    return _share(group.counts.ok - without_stream - summary.n, group.counts.ok)


def _held_back(group: StageGroup) -> str:
    facts = group.facts
    if not facts.burst_gaps:
        return ""
    zero = facts.burst_zero_gaps / facts.burst_gaps
    return f"{_share(facts.bursts, group.counts.ok)}, {zero:.0%} of their chunk gaps are zero"


def _cached(group: StageGroup) -> str:
    cached, tokens = group.facts.cached_tokens, group.facts.input_tokens
    return f"{cached / tokens:.0%}" if tokens and cached / tokens > _CACHED_SHARE else ""


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}" if part > 0 else ""
