"""Checks whether the entries of a leaderboard can be compared: connecting, lengths, token counters and load.

The figures of LLMPerf depend on these conditions. Each check returns notes that name the entries. The checks
of lengths, counters and connecting compare only entries with the same load, or with an unknown one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from llm_reports.llmperf.connecting import Connecting, connecting
from llm_reports.llmperf.results import TOKENIZER_KEY, UNKNOWN_SOURCE, stated_lengths
from llm_reports.metrics.distinctions import ALIKE, entry_names
from llm_reports.metrics.groups import Group
from llm_reports.metrics.summary import summarize
from llm_reports.sections.table_notes import listed
from llm_users.record import COL

LLMPERF_COUNTER = "LLMPerf's Llama tokenizer"
LLMPERF_TOKENIZER = "hf-internal-testing/llama-tokenizer"
USAGE = "the server's usage"
_FIXED, _DISTRIBUTED = 0.05, 0.20
"""Lengths whose standard deviation is at most 5 % of the mean count as fixed, and as distributed from 20 % on. Servers
count prompts of one length with a spread of about 2 %. Answers that only the cap ends have up to 16 % in LLMPerf's
published data. LLMPerf's defaults have 27 % and 53 %."""

_PREFIX = "Not comparable"


@dataclass(frozen=True)
class _Entry:
    """What the checks need of a group. Lengths are in tokens, NaN if unknown; "" is an unknown counter."""

    name: str
    group: Group
    means: dict[str, float]
    deviations: dict[str, float]
    counter: str


def not_comparable(groups: Sequence[Group]) -> tuple[str, ...]:
    """Return one note for each condition that differs between the entries; empty if all of them agree."""
    names = entry_names(groups)
    known = [(name, group) for name, group in zip(names, groups, strict=True) if group.counts.ok]
    # Servers count prompts with their own tokenizer. Beside LLMPerf's files, which have the requested lengths, the
    # requested length of a run is the comparable one.
    requested = any(_sources(group, "input") != {"usage"} for _, group in known)
    entries = [_entry(name, group, requested=requested) for name, group in known]
    if len(entries) < 2:
        return ()
    notes = [*_load(entries)]
    for check in (_connecting, _lengths("input"), _lengths("output"), _spreads("input"), _spreads("output"), _counters):
        details = dict.fromkeys(detail for level in _levels(entries) if (detail := check(level)))
        notes += [f"{_PREFIX}: {detail}." for detail in details]
    return (*notes, *_counted_by_servers(entries))


def counter_of(group: Group, kind: str) -> str:
    """Return what counted the input or output tokens of a group; "" if unknown."""
    sources = _sources(group, kind)
    if not sources:
        return LLMPERF_COUNTER if group.run.foreign else ""
    if UNKNOWN_SOURCE in sources:
        return ""
    names = {"usage": USAGE, "tokenizer": _tokenizer(group)}
    return " and ".join(names.get(source, source) for source in sorted(sources, reverse=True))


def _entry(name: str, group: Group, *, requested: bool) -> _Entry:
    means, deviations = {}, {}
    stated = stated_lengths(group) if requested and _sources(group, "input") == {"usage"} else {}
    for kind in ("input", "output"):
        measured = summarize(group.ok[f"{kind}_tokens"].astype("float64"))
        means[kind], deviations[kind] = measured.mean, measured.stddev if measured.n > 1 else math.nan
        if kind == "input" and f"mean_{kind}_tokens" in stated:
            means[kind] = float(stated[f"mean_{kind}_tokens"])
            deviations[kind] = float(stated.get(f"stddev_{kind}_tokens", math.nan))
    return _Entry(name, group, means, deviations, counter_of(group, "output"))


def _sources(group: Group, kind: str) -> set[str]:
    return {str(source) for source in group.ok[f"{kind}_tokens_source"].unique() if source}


def _tokenizer(group: Group) -> str:
    stated = group.run.manifest.get(TOKENIZER_KEY)
    name = str((stated.get("name") if isinstance(stated, dict) else stated) or "")
    if name.rstrip("/").rpartition("/")[2] == LLMPERF_TOKENIZER.rpartition("/")[2]:
        return LLMPERF_COUNTER
    return f"the tokenizer {name}" if name else "a local tokenizer"


def _levels(entries: Sequence[_Entry]) -> Iterator[Sequence[_Entry]]:
    """Yield the entries of each known load, each time with those whose load is unknown."""
    loads = sorted({entry.group.load for entry in entries if entry.group.load.is_known}, key=lambda load: load.order)
    if not loads:
        yield entries
    for load in loads:
        yield [entry for entry in entries if not entry.group.load.is_known or entry.group.load == load]


def _load(entries: Sequence[_Entry]) -> Iterator[str]:
    words = {entry.group.load.words for entry in entries if entry.group.load.is_known}
    unknown = list(dict.fromkeys(entry.name for entry in entries if not entry.group.load.is_known))
    if unknown:
        others = f"; the other entries have {listed(sorted(words))}" if words else ""
        yield (
            f"{_PREFIX}: the load of {listed(unknown)} is unknown, because the files do not state it{others}. If you "
            "know it, write NAME@CONCURRENCY=FILE."
        )
    if len(words) > 1:
        yield (
            f"{_PREFIX}: the entries have different loads. Compare only rows with the same load, or select one with "
            "--concurrency or --rate."
        )


def _connecting(entries: Sequence[_Entry]) -> str:
    names_of: dict[Connecting, list[str]] = {}
    for entry in entries:
        names_of.setdefault(connecting(entry.group), []).append(entry.name)
    if len(names_of) < 2:
        return ""
    parts = [f"{kind.value} in those of {listed(names_of[kind])}" for kind in Connecting if kind in names_of]
    own = any(not entry.group.run.foreign and not entry.group.count_connect for entry in entries)
    remedy = "Measure with --llm-new-connections" + (", and give --count-connect" if own else "")
    return f"the time to connect is part of some TTFT and latencies: {'; '.join(parts)}. {remedy}"


def _counted_by_servers(entries: Sequence[_Entry]) -> Iterator[str]:
    """Yield a note for each entry whose column ``In`` differs from the requested length that the check used."""
    for entry in entries:
        counted, requested = summarize(entry.group.ok[COL.input_tokens].astype("float64")).mean, entry.means["input"]
        if abs(counted - requested) > ALIKE * requested:
            yield (
                f"The server counted {counted:.0f} input tokens per prompt of {entry.name}; the requested length is "
                f"{requested:.0f}, counted by {_tokenizer(entry.group)}, and the check of the lengths used it, because "
                "LLMPerf's files have the requested length too."
            )


def _lengths(kind: str) -> Callable[[Sequence[_Entry]], str]:
    def check(entries: Sequence[_Entry]) -> str:
        known = [entry for entry in entries if entry.means[kind] > 0]
        means = [entry.means[kind] for entry in known]
        if len(known) < 2 or max(means) <= min(means) * (1 + ALIKE):
            return ""
        parts = _merged(known, lambda entry: f"{entry.means[kind]:.0f}")
        return f"the mean {kind} tokens differ by more than {100 * ALIKE:.0f} %: {'; '.join(parts)}"

    return check


def _spreads(kind: str) -> Callable[[Sequence[_Entry]], str]:
    def check(entries: Sequence[_Entry]) -> str:
        known = [entry for entry in entries if entry.means[kind] > 0 and not math.isnan(entry.deviations[kind])]
        fixed = [entry for entry in known if entry.deviations[kind] <= _FIXED * entry.means[kind]]
        spread = [entry for entry in known if entry.deviations[kind] >= _DISTRIBUTED * entry.means[kind]]
        if not fixed or not spread:
            return ""
        parts = _merged(spread, lambda entry: f"standard deviation {entry.deviations[kind]:.0f}")
        return (
            f"the {kind} tokens are almost the same in all requests of {listed(_names(fixed))}, and they are "
            f"distributed in {'; '.join(parts)}"
        )

    return check


def _counters(entries: Sequence[_Entry]) -> str:
    known = [entry for entry in entries if entry.counter]
    if len({entry.counter for entry in known}) < 2:
        return ""
    names_of: dict[str, list[str]] = {}
    for entry in known:
        names_of.setdefault(entry.counter, []).append(entry.name)
    parts = [f"{counter} counted those of {listed(list(dict.fromkeys(names)))}" for counter, names in names_of.items()]
    remedy = ""
    if LLMPERF_COUNTER in names_of:
        remedy = f". Measure with --llm-tokenizer {LLMPERF_TOKENIZER} --llm-count tokenizer"
    return f"different counters counted the output tokens: {'; '.join(parts)}{remedy}"


def _names(entries: Sequence[_Entry]) -> list[str]:
    return list(dict.fromkeys(entry.name for entry in entries))


def _merged(entries: Sequence[_Entry], value: Callable[[_Entry], str]) -> list[str]:
    """Return ``a and b 550`` for each value."""
    names_of: dict[str, list[str]] = {}
    for entry in entries:
        names_of.setdefault(value(entry), []).append(entry.name)
    return [f"{listed(list(dict.fromkeys(names)))} ({text})" for text, names in names_of.items()]
