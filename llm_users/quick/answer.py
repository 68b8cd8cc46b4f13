"""The answer of ``llm-bench quick``: a table with one line per stage, three sentences, and the next command to type."""

from __future__ import annotations

import math
import shlex
import textwrap
from collections.abc import Sequence
from itertools import pairwise

from llm_users.prices import PriceError, Prices
from llm_users.quick.figures import StageFigures, Usage

KNEE_SHARE = 0.8
"""A user is slow if it gets less than this share of the tokens/s that a user of the smallest stage gets. Below it, a
difference is clearly larger than the noise of stages with a few requests."""

_ROW = "{:>5} {:>8}  {:>6}  {:>7}  {:>7}  {:>13}  {:>12}  {}"
_WIDTH = 80

LEGEND = (
    "TTFT: time to first token. TPOT: time per output token. tokens/s each: the\n"
    "output tokens of a request / its whole time. Medians of the requests."
)


def plan(sweep: str, stage_time: str, input_tokens: str, output_tokens: str) -> str:
    """Return what the run is going to do."""
    return _wrapped(
        f"Sweep: concurrency {sweep}, {stage_time} each, with {input_tokens} input tokens and up to {output_tokens} "
        "output tokens per request"
    )


def error_text(message: str) -> str:
    """Return an error message of the command."""
    return _wrapped(f"llm-bench quick: {message}")


def header() -> str:
    """Return the header of the table."""
    return _ROW.format("users", "requests", "failed", "TTFT", "TPOT", "tokens/s each", "tokens/s all", "client")


def line(stage: StageFigures) -> str:
    """Return the line of one stage."""
    return _ROW.format(
        stage.users,
        stage.requests,
        stage.failed,
        _time(stage.ttft_s),
        _time(stage.tpot_s),
        _digits(stage.tokens_per_s_each),
        _digits(stage.tokens_per_s),
        stage.health or "-",
    )


def sentences(stages: Sequence[StageFigures]) -> str:
    """Return the result: what one user gets, what each of many users gets, and where the total stops growing.

    ``stages`` are in ascending order of users, and each has a successful request.
    """
    first, last = stages[0], stages[-1]
    parts = [f"{_users(first.users)}: {_experience(first)}."]
    if last is not first:
        parts.append(f"{_users(last.users)}: {_experience(last)}{' each' if last.users > 1 else ''}.")
        fastest = max(stages, key=lambda stage: stage.tokens_per_s)
        total = f"The fastest total was {_digits(fastest.tokens_per_s)} tokens/s at {_count(fastest.users)}"
        smallest = "a single user gets" if first.users == 1 else f"each of {_count(first.users)} gets"
        share = f"{100 * KNEE_SHARE:.0f} % of the tokens/s that {smallest}"
        knee = knee_of(stages)
        if knee is None:
            parts.append(f"{total}; up to {_count(last.users)}, each user gets at least {share}.")
        else:
            parts.append(f"{total}; beyond {_count(knee.users)}, each user gets less than {share}.")
    return _wrapped(" ".join(parts))


def cost(usages: Sequence[Usage], prices: Prices) -> str:
    """Return what the requests of the run cost, warm-ups included."""
    parts = []
    for usage in usages:
        try:
            price = prices.of_model(usage.model)
        except PriceError as error:
            parts.append(f"Cost: unknown. {error}")
            continue
        if price is None:
            parts.append(f"Cost: the price file has no price per token for {usage.model}.")
            continue
        amount = price.of(usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.cache_write_tokens)
        parts.append(
            f"Cost: {prices.shown(amount)} for {usage.requests:,} requests with {usage.input_tokens:,.0f} input and "
            f"{usage.output_tokens:,.0f} output tokens, warm-ups included; "
            f"{prices.shown(1000 * amount / usage.requests)} per 1,000 requests."
        )
    return _wrapped(" ".join(parts))


def knee_of(stages: Sequence[StageFigures]) -> StageFigures | None:
    """Return the last stage before the first one whose users are slow, or None if the users of no stage are slow."""
    for stage, following in pairwise(stages):
        if following.tokens_per_s_each < KNEE_SHARE * stages[0].tokens_per_s_each:
            return stage
    return None


def notes(stages: Sequence[StageFigures], planned: Sequence[int], failure: str) -> list[str]:
    """Return what limits the trust in the figures: failures, an unhealthy client, stages that did not run."""
    found = []
    failed, requests = sum(stage.failed for stage in stages), sum(stage.requests for stage in stages)
    if failed:
        found.append(f"{failed} of {requests} requests failed, the first one with {failure}")
    if any(math.isnan(stage.ttft_s) for stage in stages if stage.succeeded):
        found.append("The answers arrived all at once, so the times of their tokens are unknown. The server or a proxy "
                     "does not stream.")  # fmt: skip
    unhealthy = [f"{_count(stage.users)} ({stage.health})" for stage in stages if stage.health not in ("ok", "")]
    if unhealthy:
        found.append(
            f"This machine affected the figures at {', '.join(unhealthy)}: other programs used the CPU, or the client "
            "was too slow. The server may be faster."
        )
    missing = [users for users in planned if users not in {stage.users for stage in stages}]
    if missing and stages:
        found.append(
            f"The time was over before {', '.join(map(str, missing))} users ran: an answer takes "
            f"{_time(stages[-1].latency_s)}. Use shorter answers (--llm-output-tokens) or a sweep of your own."
        )
    return [textwrap.fill(f"Note: {note}", _WIDTH, subsequent_indent="  ") for note in found]


_SEARCH = "--llm-find 'ttft_p95<1,tpot_p95<50ms' --llm-rate 1,64 --llm-report"


def next_commands(stages: Sequence[StageFigures], server: Sequence[str], prefix: str) -> str:
    """Return the commands that continue the work: a sweep around the knee, a load search, the report of this run."""
    top = stages[-1].users if knee_of(stages) is not None else 4 * stages[-1].users
    levels = [1]
    while levels[-1] < top:
        levels.append(2 * levels[-1])
    sweep = shlex.join(["llm-bench", "--headless", *server])
    more = f"--llm-sweep {','.join(map(str, levels))} --llm-report"
    separator = " " if len(sweep) + len(more) < _WIDTH - 2 else " \\\n    "
    return (
        f"Next, measure a full sweep and write a report:\n  {sweep}{separator}{more}\n"
        f"Or size a deployment: find the highest rate within your latency limits:\n  {sweep} \\\n    {_SEARCH}\n"
        f"Or write the report of this run:\n  {shlex.join(['llm-report', prefix])}"
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _experience(stage: StageFigures) -> str:
    if math.isnan(stage.ttft_s):
        return f"a complete answer in {_time(stage.latency_s)}, {_digits(stage.tokens_per_s_each)} tokens/s"
    if math.isnan(stage.tpot_s):
        return f"first token in {_time(stage.ttft_s)}"
    return f"first token in {_time(stage.ttft_s)}, {_digits(stage.tokens_per_s_each)} tokens/s"


def _count(users: int) -> str:
    return "1 user" if users == 1 else f"{users} users"


def _users(users: int) -> str:
    return "One user" if users == 1 else f"With {users} users"


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    return f"{_digits(seconds * 1e3)} ms" if seconds < 1 else f"{_digits(seconds)} s"


def _digits(value: float) -> str:
    """Return a number with three digits, or more before the decimal point."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
