"""Reads a server's metrics from Prometheus' text format, only as far as the table of engines needs them.

A server prints many more samples than the table has, and parsing all of them takes several milliseconds. Lines of other
samples are therefore dropped before the parser sees them.
"""

from __future__ import annotations

import math
import os.path
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import gevent
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from llm_users.secrets import redact_start
from llm_users.server_metric import HISTOGRAM, METRICS
from llm_users.server_metrics.engines import ADDED, ENGINES, Source

_MOST_LINES = 5_000
"""The most lines of the table that one answer may have. A server with 30 label sets has fewer."""

_LONGEST_LINE = 4096
"""The longest line in bytes. The time to parse a line grows with the square of its length."""

_SAMPLES_PER_YIELD = 50
"""Number of samples to parse before other greenlets may run: about 1 ms."""

_HIGHEST_SHARE = 1.001
"""A share above this value is not a share; rounding can make it a little more than 1."""

OPENMETRICS = "application/openmetrics-text"
"""The content type of the other text format, which has its own parser."""

_EXEMPLAR = re.compile(rb"(?<=[\dfN]) # \{.*")
"""An exemplar follows the value of its sample."""
_PROCESS_START = re.compile(rb"\nprocess_start_time_seconds ([0-9.eE+]{1,40})[ \r\n]")
"""A sample that the Prometheus clients of most languages publish without labels."""
_PARTS = ("_bucket", "_sum", "_count")


class NotMetrics(ValueError):
    """The answer is not text in Prometheus' format. The message says what the server did."""


@dataclass(slots=True)
class HistogramValue:
    """A histogram since the start of the server: cumulative counts by upper bound, the sum and the count."""

    buckets: dict[float, float] = field(default_factory=lambda: defaultdict(float))
    total: float = 0.0
    count: float = 0.0


@dataclass(slots=True)
class Reading:
    """What one answer says: the values of gauges and counters and the histograms, by our names of the metrics.

    ``started_s`` is the Unix time at which the server's process started; ``None`` if the server does not publish it.
    """

    engine: str
    values: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, HistogramValue] = field(default_factory=dict)
    started_s: float | None = None


def engine_of(body: bytes) -> str | None:
    """Return the engine whose samples the text has, or None."""
    for engine, pattern in _WHOLE.items():
        if pattern.search(b"\n" + body):
            return engine
    return None


def read(body: bytes, content_type: str, *, engine: str, histograms: bool) -> Reading:
    """Return the metrics of this engine in an answer. ``histograms``: also the histograms, which have most lines.

    Raises ``NotMetrics``.
    """
    samples = _samples_of(_lines(body, _WHOLE[engine] if histograms else _VALUES[engine]), content_type)
    reading = Reading(engine, started_s=_started_s(body) if histograms else None)
    for name, sources in ENGINES[engine].items():
        for source in sources:
            if METRICS[name].kind == HISTOGRAM:
                found = histograms and _histogram(samples, source, reading, name)
            else:
                found = _value(samples, source, reading, name)
            if found:
                break
    for name, part in ADDED.get(engine, {}).items():
        if name in reading.values:
            reading.values[name] += reading.values.get(part, 0.0)
    return reading


def _started_s(body: bytes) -> float | None:
    found = _PROCESS_START.search(b"\n" + body)
    try:
        return float(found[1]) if found else None
    except ValueError:
        return None


def _lines(body: bytes, pattern: re.Pattern[bytes]) -> list[bytes]:
    """Return the lines of the table. Raises ``NotMetrics`` if they are too many or too long."""
    lines = pattern.findall(b"\n" + body)
    if len(lines) > _MOST_LINES:
        raise NotMetrics(f"answers with {len(lines)} lines of known metrics, more than {_MOST_LINES}")
    if max(map(len, lines), default=0) > _LONGEST_LINE:
        raise NotMetrics(f"answers with a line of more than {_LONGEST_LINE} bytes")
    return lines


def _samples_of(lines: list[bytes], content_type: str) -> Mapping[str, list[Sample]]:
    """Parse the lines in the format that the content type names. Raises ``NotMetrics``."""
    is_open = content_type.partition(";")[0].strip().lower() == OPENMETRICS
    if is_open:
        # Without the lines of the types, each name of a sample is a family, whose samples must follow each other.
        lines = sorted((_EXEMPLAR.sub(b"", line) for line in lines), key=lambda line: line.partition(b"{")[0])
    text = "".join(f"{line.decode(errors='replace')}\n" for line in lines)
    try:
        if is_open:
            families = openmetrics_parser.text_string_to_metric_families(f"{text}# EOF\n")  # type: ignore[no-untyped-call]
        else:
            families = text_string_to_metric_families(text)
        return _by_name(sample for family in families for sample in family.samples)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise NotMetrics(f"answers with text that cannot be parsed ({redact_start(str(error), 100)})") from None


def _by_name(samples: Iterable[Sample]) -> Mapping[str, list[Sample]]:
    by_name = defaultdict(list)
    for count, sample in enumerate(samples, 1):
        by_name[sample.name].append(sample)
        if count % _SAMPLES_PER_YIELD == 0:
            gevent.sleep(0)
    return by_name


def _matching(samples: Mapping[str, list[Sample]], source: Source, part: str = "") -> Iterator[Sample]:
    """Yield the samples of a source that have its labels."""
    for sample in samples.get(source.sample + part, ()):
        if all(sample.labels.get(label) == value for label, value in source.labels.items()):
            yield sample


def _total(samples: Iterable[Sample], scale: float) -> float:
    """Return the sum of the finite values, which is NaN if it is too large."""
    try:
        return math.fsum(sample.value for sample in samples if math.isfinite(sample.value)) * scale
    except OverflowError:
        return math.nan


def _value(samples: Mapping[str, list[Sample]], source: Source, reading: Reading, name: str) -> bool:
    """Add the value of a gauge or a counter unless it is impossible. Return whether the server publishes it."""
    found = [sample for sample in _matching(samples, source) if math.isfinite(sample.value)]
    if not found:
        return False
    total, metric = _total(found, source.scale), METRICS[name]
    value = total / len(found) if metric.averaged else total
    if math.isfinite(value) and 0 <= value <= (_HIGHEST_SHARE if metric.unit == "share" else math.inf):
        reading.values[name] = value
    return True


def _histogram(samples: Mapping[str, list[Sample]], source: Source, reading: Reading, name: str) -> bool:
    """Add a histogram unless it is impossible. Return whether the server publishes it."""
    counts = list(_matching(samples, source, "_count"))
    if not counts:
        return False
    value = HistogramValue(total=_total(_matching(samples, source, "_sum"), source.scale), count=_total(counts, 1.0))
    for sample in _matching(samples, source, "_bucket"):
        try:
            value.buckets[float(sample.labels["le"]) * source.scale] += sample.value
        except (KeyError, ValueError):
            raise NotMetrics(f"answers with a bucket of {source.sample} without an upper bound") from None
    if all(map(math.isfinite, (value.total, value.count, *value.buckets.values()))):
        reading.histograms[name] = value
    return True


def _pattern(names: Iterable[str]) -> re.Pattern[bytes]:
    """Return a pattern that finds the lines of these samples.

    The common start of the names comes first, because the search for a fixed text is fast.
    """
    names = sorted(set(names))
    start = os.path.commonprefix(names)  # noqa: RUF071 - names, not paths
    rest = "|".join(re.escape(name[len(start) :]) for name in names)
    return re.compile(rf"\n({re.escape(start)}(?:{rest})[{{ \t][^\n]*)".encode())


def _samples(engine: str, *, histograms: bool) -> Iterator[str]:
    for name, sources in ENGINES[engine].items():
        for source in sources:
            if METRICS[name].kind != HISTOGRAM:
                yield source.sample
            elif histograms:
                yield from (source.sample + part for part in _PARTS)


_VALUES = {engine: _pattern(_samples(engine, histograms=False)) for engine in ENGINES}
_WHOLE = {engine: _pattern(_samples(engine, histograms=True)) for engine in ENGINES}
