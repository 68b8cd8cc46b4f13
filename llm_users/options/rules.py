"""Rules between options: which options exclude each other and which options need another one."""

from __future__ import annotations

from collections.abc import Iterator

from llm_users.options.parsers import OptionError, Warmup
from llm_users.options.table import Options, option_named

_DEFAULTS = Options()

_NOT_WITH_A_TRACE = {
    "rate": "a trace defines when requests start",
    "sweep": "a trace defines when requests start",
    "find": "a trace defines its load; change it with --llm-trace-speed",
    "stage_time_s": "select a part of a trace with --llm-trace-window",
    "prompt": "a trace defines the lengths of prompts",
    "prompts": "a trace defines the lengths of prompts",
    "length_mix": "a trace defines the lengths of prompts and answers",
    "length_sweep": "a trace defines the lengths of prompts and answers",
    "shared_prefix": "a trace defines which parts its prompts share",
}
_NOT_WITH_A_LENGTH_SWEEP = {
    "length_mix": "a stage has one pair of lengths",
    "prompt": "the text defines its length",
    "prompts": "the dataset defines the lengths of prompts",
    "conversations": "a conversation grows with each turn",
    "find": "search with one pair of lengths: --llm-input-tokens and --llm-output-tokens",
}
_ONLY_WITH_A_TRACE = ("trace_speed", "trace_window", "trace_unit", "trace_block_size")


def check(options: Options) -> None:
    """Check the rules in order. Raises ``OptionError`` for the first broken rule; the message says what to do."""
    problem = next((text for broken, text in _rules(options) if broken), None)
    if problem is not None:
        raise OptionError(problem)


def _rules(o: Options) -> Iterator[tuple[bool, str]]:
    """Yield for each rule whether it is broken, and what to do about it."""
    if o.trace is not None:
        for name, why in _NOT_WITH_A_TRACE.items():
            yield _is_given(o, name), f"--llm-trace and {option_named(name).flag} exclude each other: {why}"
        # One request is the default, and the program cannot know whether a user gave it.
        yield (
            o.warmup not in (Warmup(), _DEFAULTS.warmup),
            "--llm-trace and --llm-warmup exclude each other: warm-up requests would be missing from the trace. Start "
            "it earlier with --llm-trace-window, or warm the server up before the run",
        )
    else:
        yield (
            any(_is_given(o, name) for name in _ONLY_WITH_A_TRACE),
            "--llm-trace-speed, --llm-trace-window, --llm-trace-unit and --llm-trace-block-size need a trace; give one "
            "with --llm-trace",
        )
    if o.length_sweep:
        for name, why in _NOT_WITH_A_LENGTH_SWEEP.items():
            yield _is_given(o, name), f"--llm-length-sweep and {option_named(name).flag} exclude each other: {why}"
        yield not (o.sweep or o.rate or o.trace), "--llm-length-sweep needs --llm-sweep or --llm-rate"
    has_ramp = any(rate.start_per_s != rate.end_per_s for rate in o.rate)
    yield (
        has_ramp and o.stage_time_s is None,
        "--llm-rate: a rate that changes within a stage needs the length of the stage; give --llm-stage-time",
    )
    yield (
        has_ramp and o.find is not None,
        "--llm-rate: with --llm-find, write the range of the search as LOW,HIGH, for example 1,64",
    )
    yield (
        o.prompt is not None and o.prompts is not None,
        "--llm-prompt and --llm-prompts exclude each other; give one of them",
    )
    yield (
        o.repeat_prompts and o.run_key is not None,
        "--llm-repeat-prompts and --llm-run-key exclude each other; give one of them",
    )
    yield (
        bool(o.rate and o.sweep),
        "--llm-rate and --llm-sweep exclude each other: a stage has either a rate or a number of users",
    )
    yield (
        o.open_loop and o.budget is not None and o.max_in_flight is None,
        "--llm-budget needs --llm-max-in-flight in an open loop: it limits the cost of requests in flight",
    )
    yield (
        o.max_in_flight is not None and not o.open_loop,
        "--llm-max-in-flight needs an open loop; give --llm-rate or --llm-trace",
    )
    yield (
        bool(o.targets) and o.model is not None,
        "--llm-model and --llm-targets exclude each other: targets name their models",
    )
    rates = tuple(rate.mean_per_s for rate in o.rate)
    for flag, ends in (("--llm-sweep", o.sweep), ("--llm-rate", rates)):
        yield (
            o.find is not None and (len(ends) > 2 or (len(ends) == 2 and ends[0] >= ends[1])),
            f"{flag}: with --llm-find, write the range of the search as LOW,HIGH, for example 1,64",
        )
    yield (
        o.images is not None and o.api == "completions",
        "--llm-images: legacy completions accept only text; leave out --llm-api completions",
    )
    yield (o.budget is not None and o.prices is None, "--llm-budget needs prices; give them with --llm-prices FILE")


def _is_given(options: Options, name: str) -> bool:
    return bool(getattr(options, name) != getattr(_DEFAULTS, name))
