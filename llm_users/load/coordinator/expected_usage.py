"""The expected usage of a run: its requests, its tokens and its cost, as far as the options define them.

The lengths of prompts and output caps are drawn with the seed of the run, so the means are those of the prompts that
the run sends. The server counts input tokens with its own tokenizer and its chat template. An answer can be shorter
than its cap, and cached input is cheaper, so the output and the cost are upper limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean

from llm_users.options.parsers import Target
from llm_users.options.table import Options
from llm_users.prices import Price
from llm_users.prompts import Trace, length_at, load_tokenizer, make_source

_MOST_DRAWS = 1000
"""The number of drawn lengths behind a mean. They take 20 ms; the mean of more of them differs by less than 3 % if the
standard deviation is as large as the mean."""
_MOST_PROMPTS = 200
"""The number of given prompts whose tokens are counted."""


@dataclass(frozen=True, slots=True)
class RequestCount:
    """The number of requests of a run, warm-up included. ``bound`` is "" for an exact number, or "about", ..."""

    number: int
    bound: str = ""


@dataclass(frozen=True, slots=True)
class TokensPerRequest:
    """Mean tokens of a request. ``input`` is None if it is unknown."""

    input: float | None
    output: float

    @classmethod
    def of_trace(cls, trace: Trace, requests: int) -> TokensPerRequest:
        """Return the mean tokens of the first requests of a trace."""
        entries = trace.entries[:requests]
        return cls(fmean(entry.input_tokens for entry in entries), fmean(entry.output_tokens for entry in entries))


def expected_text(
    options: Options,
    *,
    workers: int = 1,
    users: int = 0,
    replayed: tuple[int, TokensPerRequest] | None = None,
    has_conversations: bool = False,
    counts_prompts: bool = True,
) -> str:
    """Return the sentence about the expected usage of the run.

    ``users`` are Locust's users of a run without stages; ``replayed`` describes the requests of a trace. With
    ``counts_prompts``, the function reads the files with prompts: do not call it in an event loop.
    """
    if replayed is not None:
        count: RequestCount | None = RequestCount(replayed[0])
        tokens = replayed[1]
    else:
        count = request_count(options, workers=workers, users=users)
        tokens = tokens_per_request(
            options,
            count.number if count is not None else _MOST_DRAWS,
            has_conversations=has_conversations,
            counts_prompts=counts_prompts,
        )
    requests = count.number if count is not None else 1
    if count is None:
        beginning = "The number of requests of this run depends on its answers. Each request has"
    else:
        bound = f"{count.bound} " if count.bound else ""
        warmups = 0 if replayed is not None else warmup_count(options, workers=workers, users=users)
        of_warmups = f", {warmups:,} of them as warm-ups" if warmups else ""
        beginning = f"This run sends {bound}{requests:,} request{'' if requests == 1 else 's'}{of_warmups}:"
    images = " (without images)" if options.images is not None else ""
    given = f"about {_rounded(requests * tokens.input)}" if tokens.input is not None else "an unknown number of"
    return (
        f"{beginning} {given} input{images} and up to {_rounded(requests * tokens.output)} output tokens"
        f"{_cost(options, requests, tokens)}"
    )


def request_count(options: Options, *, workers: int = 1, users: int = 0) -> RequestCount | None:
    """Return the number of requests of the run, or None if it depends on the answers."""
    if options.find is not None:
        return None
    warmup = options.stage_warmup
    if options.rate:
        return _open_loop_count(options, workers)
    stages = [
        requests_of_stage(options, stage_users, free=not options.staged)
        for stage_users in (options.sweep or (users,)) * max(1, len(options.length_sweep))
    ]
    number = sum(requests for requests in stages if requests is not None)
    if not number:
        return None
    # A timed warm-up sends an unknown number of requests, and so do users before a run without stages is measured.
    more = bool(warmup.time_s) or not options.staged or (not warmup.requests and bool(options.ramp_s))
    fewer = options.staged and options.stage_time_s is not None
    return RequestCount(number, "about" if more and fewer else "at least" if more else "up to" if fewer else "")


def warmup_count(options: Options, *, workers: int = 1, users: int = 0) -> int:
    """Return how many of the requests in ``request_count`` are warm-ups."""
    warmup, lengths = options.stage_warmup, max(1, len(options.length_sweep))
    if options.rate:
        return round(sum(_open_loop_warmup(rate.start_per_s, options, workers) for rate in options.rate) * lengths)
    return sum(options.sweep or (users,)) * warmup.requests * lengths


def _open_loop_warmup(start_per_s: float, options: Options, workers: int) -> float:
    """Return the warm-up requests of one stage whose rate begins with ``start_per_s``."""
    warmup = options.stage_warmup
    return workers * warmup.requests + start_per_s * warmup.time_s


def requests_of_stage(options: Options, users: int, *, free: bool) -> int | None:
    """Return the number of requests of one stage, or None if it depends on the answers.

    In an open loop, it does not include the warm-up. ``free``: the run has no stages, and Locust starts ``users``.
    """
    requests = options.requests if free else options.stage_requests
    if requests is not None and not options.open_loop:
        requests += users * options.stage_warmup.requests
    return requests


def _open_loop_count(options: Options, workers: int) -> RequestCount:
    warmup, number, exact = options.stage_warmup, 0.0, True
    for rate in options.rate * max(1, len(options.length_sweep)):
        measured: float = requests_of_stage(options, 0, free=False) or 0
        if options.stage_time_s is not None:
            arrivals = rate.mean_per_s * options.stage_time_s
            measured = min(measured, arrivals) if measured else arrivals
            exact = False
        number += measured + _open_loop_warmup(rate.start_per_s, options, workers)
    return RequestCount(round(number), "" if exact and not warmup.time_s else "about")


def tokens_per_request(
    options: Options,
    requests: int,
    *,
    has_conversations: bool = False,
    counts_prompts: bool = True,
) -> TokensPerRequest:
    """Return the mean tokens of the first ``requests`` requests, from at most 1,000 of them."""
    indices = range(max(1, min(requests, _MOST_DRAWS)))
    prefix = options.shared_prefix.tokens if options.shared_prefix is not None else 0
    drawn = fmean(length_at(options.input_tokens, options.seed, index, "input") for index in indices)
    cap = fmean(length_at(options.output_tokens, options.seed, index, "output") for index in indices)
    if has_conversations:
        if options.conversations is not None:
            return TokensPerRequest(None, cap)
        turns = [length_at(options.turns, options.seed, index, "turns") for index in indices]
        return TokensPerRequest(prefix + _with_history(turns, drawn, cap), cap)
    if options.prompt is None and options.prompts is None:
        return TokensPerRequest(prefix + drawn, cap)
    if not counts_prompts:
        return TokensPerRequest(None, cap)
    return _given_prompts(options, range(min(len(indices), _MOST_PROMPTS)))


def input_length(options: Options) -> Callable[[int], int] | None:
    """Return the function from the index of a prompt to its input tokens; None if the options do not define them."""
    given = (options.prompt, options.prompts, options.trace, options.conversations)
    if any(source is not None for source in given) or options.length_sweep:
        return None
    return lambda index: length_at(options.input_tokens, options.seed, index, "input")


def mean_price(options: Options) -> Price | None:
    """Return the mean price of a token over the models of the run by their shares of the requests.

    It is None without a model, or if the price file has no price for one of them. Raises PriceError.
    """
    prices = options.prices
    targets = options.targets or ((Target(options.model),) if options.model else ())
    if prices is None or not targets:
        return None
    shares: list[tuple[float, Price]] = []
    for target in targets:
        price = prices.of_model(target.model)
        if price is None:
            return None
        shares.append((float(target.weight), price))
    return Price.mean(shares)


def _with_history(turns: Iterable[int], drawn: float, cap: float) -> float:
    """Return the mean input of a turn: turn n contains n messages of the user and n - 1 answers."""
    counts = list(turns)
    messages = sum(count * (count + 1) / 2 for count in counts)
    answers = sum(count * (count - 1) / 2 for count in counts)
    return (messages * drawn + answers * cap) / sum(counts)


def _given_prompts(options: Options, indices: range) -> TokensPerRequest:
    source = make_source(
        tokenizer=load_tokenizer(options.tokenizer),
        input_lengths=options.input_tokens,
        output_lengths=options.output_tokens,
        seed=options.seed,
        text=options.prompt,
        file=options.prompts,
        in_order=options.prompts_order == "file",
        prefixes=options.shared_prefix,
    )
    prompts = [source.prompt(index) for index in indices]
    counted = [prompt.input_tokens for prompt in prompts if prompt.input_tokens is not None]
    return TokensPerRequest(fmean(counted) if counted else None, fmean(prompt.max_tokens or 0 for prompt in prompts))


def _rounded(tokens: float) -> str:
    """Return a number with three significant digits."""
    return f"{float(f'{tokens:.3g}'):,.0f}"


def _cost(options: Options, requests: int, tokens: TokensPerRequest) -> str:
    """Return the cost as the end of a sentence, or "" without prices per token."""
    prices = options.prices
    if prices is None:
        return ""
    targets = options.targets or ((Target(options.model),) if options.model else ())
    if not targets:
        return "; the cost is unknown, because --llm-model is not given"
    price = mean_price(options)
    if price is None:
        unpriced = next(target.model for target in targets if prices.of_model(target.model) is None)
        paid_per_hour = prices.hour_of_model(unpriced) is not None
        return "" if paid_per_hour else f"; the price file has no price for {unpriced}"
    if tokens.input is None:
        return "; the cost is unknown, because the input is"
    return f", up to about {prices.shown(requests * price.of(tokens.input, tokens.output))}"
