"""The accuracy table as Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from tests.system.accuracy.bounds import (
    BEDROCK_CHAT,
    BEDROCK_MESSAGES,
    BEDROCK_RESPONSES,
    CHAT,
    CONVERSE,
    INVOKE,
    MESSAGES,
    RESPONSES,
)
from tests.system.accuracy.judging import Line
from tests.system.accuracy.load_run import Plan

_APIS = {
    CHAT: "OpenAI chat",
    RESPONSES: "OpenAI responses",
    MESSAGES: "Anthropic messages",
    CONVERSE: "ConverseStream",
    INVOKE: "Invoke (Anthropic)",
    BEDROCK_CHAT: "bedrock-chat, signed",
    BEDROCK_RESPONSES: "bedrock-responses, signed",
    BEDROCK_MESSAGES: "bedrock-messages, signed",
}
_HEADER = (
    "API",
    "streams",
    "on",
    "ramp",
    "requests",
    "TTFT error p50 / p99",
    "error of (last - first) p99",
    "CPU per token (event)",
    "CPU of the reference",
    "CPU ratio",
    "rate / ideal",
    "health",
    "stamps",
    "server late p99",
    "others' CPU",
    "verdict",
)


def header() -> list[str]:
    """Return the two lines before the first row."""
    return [_row(_HEADER), _row(["---"] * len(_HEADER))]


def line(of: Line) -> str:
    """Return one line; a bound is in brackets after its figure."""
    bounds, first = of.bounds, of.outcomes[0]
    runs = f" x {len(of.outcomes)}" if len(of.outcomes) > 1 else ""
    ttft = f"{_ms(of.median(lambda o: o.ttft_p50_s))} / {_ms(of.median(lambda o: o.ttft_p99_s))} ms"
    span = f"{_ms(of.median(lambda o: o.span_p99_s))} ms"
    cpu = f"{of.median(lambda o: o.cpu_per_token_s) * 1e6:.1f} µs"
    reference_s, ratio = of.reference_cpu_per_token_s, of.cpu_ratio
    reference_cell = f"{reference_s * 1e6:.1f} µs" if reference_s is not None else "-"
    ratio_cell = f"{ratio:.2f}" if ratio is not None else "-"
    rate = f"{of.median(lambda o: o.rate):.4f}"
    health = _distinct(outcome.health for outcome in of.outcomes)
    if bounds is not None:
        ttft += f" (≤ {bounds.ttft_p50_s * 1e3:g} / {bounds.ttft_p99_s * 1e3:g})"
        span += f" (≤ {bounds.span_p99_s * 1e3:g})" if bounds.span_p99_s is not None else ""
        cpu += f" (≤ {bounds.cpu_per_token_s * 1e6:g})" if bounds.cpu_per_token_s is not None else ""
        ratio_cell += f" (≤ {bounds.cpu_ratio:g})" if bounds.cpu_ratio is not None else ""
        rate += f" (≥ {bounds.rate:g})"
        health += f" ({' or '.join(bounds.health)})" if bounds.health is not None else ""
    cells = [
        api_of(of.plan),
        f"{of.plan.streams}{_processes(of)}",
        first.server,
        of.plan.ramp,
        f"{first.requests}{runs}",
        ttft,
        span,
        cpu,
        reference_cell,
        ratio_cell,
        rate,
        health,
        _distinct(outcome.stamp_source for outcome in of.outcomes),
        f"{_ms(of.median(lambda o: o.late_p99_s))} ms",
        f"{of.median(lambda o: o.other_cores):.2f} cores",
        of.verdict,
    ]
    return _row(cells)


def api_of(plan: Plan) -> str:
    """Return the name of the API, with boto3's own path if that is used."""
    return _APIS[plan.api] + (", boto3's own path" if plan.sdk else "")


def _processes(of: Line) -> str:
    return "" if of.plan.processes == 1 else f" over {of.plan.processes} processes"


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))
