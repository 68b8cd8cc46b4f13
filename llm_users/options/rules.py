"""Which options do not go together. Each rule says whether it is broken, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llm_users.options.parsers import OptionError
from llm_users.prompts import BLOCK_TOKENS

if TYPE_CHECKING:
    from llm_users.options.table import Options


def rules(o: Options) -> Iterator[tuple[bool, str]]:
    """What does not go together: whether it is so, and what to do about it."""
    yield (
        o.prompt is not None and o.prompts is not None,
        "--llm-prompt and --llm-prompts exclude each other; give one of them",
    )
    yield (
        o.repeat_prompts and o.run_key is not None,
        "--llm-repeat-prompts and --llm-run-key exclude each other; give one of them",
    )
    yield (
        bool(o.rates and o.sweep),
        "--llm-rate and --llm-sweep exclude each other: a stage has its rate or its users",
    )
    yield (
        o.open_loop and o.budget is not None and o.max_in_flight is None,
        "--llm-budget needs --llm-max-in-flight in an open loop: else nobody knows what is on its way",
    )
    yield (
        o.max_in_flight is not None and not o.open_loop,
        "--llm-max-in-flight is for an open loop; give its rate with --llm-rate, or --llm-trace",
    )
    yield (
        bool(o.targets) and o.model is not None,
        "--llm-model and --llm-targets exclude each other: targets name their models",
    )
    for flag, ends in (("--llm-sweep", o.sweep), ("--llm-rate", o.rates)):
        yield (
            o.find is not None and (len(ends) > 2 or (len(ends) == 2 and ends[0] >= ends[1])),
            f"{flag}: with --llm-find it says where to search, as LOW,HIGH, for example 1,64",
        )
    yield (
        o.images is not None and o.api == "completions",
        "--llm-images: legacy completions take nothing but text; leave out --llm-api completions",
    )
    yield (
        o.budget is not None and o.prices is None,
        "--llm-budget needs to know prices: give them with --llm-prices FILE",
    )


_NOT_WITH_A_TRACE = {
    "llm_rate": "a trace says when requests come",
    "llm_sweep": "a trace says when requests come",
    "llm_find": "a trace has one load; --llm-trace-speed makes it another",
    "llm_stage_time": "a part of a trace is taken with --llm-trace-window, its first requests with --llm-requests",
    "llm_prompt": "a trace says how long prompts are",
    "llm_prompts": "a trace says how long prompts are",
    "llm_lengths": "a trace says how long prompts and answers are",
    "llm_prefix": "a trace says what its prompts share",
}


def check_trace(values: dict[str, Any]) -> None:
    """What a trace excludes, and no warm-up: it would take requests out of the trace."""
    if "llm_trace" not in values:
        others = ("llm_trace_window", "llm_trace_unit")
        if (
            values["llm_trace_speed"] != 1
            or values["llm_trace_block_size"] != BLOCK_TOKENS
            or set(others) & set(values)
        ):
            raise OptionError(
                "--llm-trace-speed, --llm-trace-window, --llm-trace-unit and --llm-trace-block-size are for a trace; "
                "give one with --llm-trace"
            )
        return
    for dest, why in _NOT_WITH_A_TRACE.items():
        if dest in values:
            flag = "--" + dest.replace("_", "-")
            raise OptionError(f"--llm-trace and {flag} exclude each other: {why}")
    # One request is the default, which cannot be told from one that was given.
    if values.pop("llm_warmup", None) not in (None, (0, 0.0), (1, 0.0)):
        raise OptionError(
            "--llm-trace and --llm-warmup exclude each other: warm-up requests would be missing in the trace. Begin it "
            "earlier with --llm-trace-window, or warm the server up before"
        )
    values["llm_warmup"] = (0, 0.0)
