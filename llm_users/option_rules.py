"""Which options do not go together. Each rule says whether it is broken, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_users.options import Options


def rules(o: Options) -> Iterator[tuple[bool, str]]:
    """What does not go together: whether it is so, and what to do about it."""
    yield (
        o.prompt is not None and o.prompts is not None,
        "--llm-prompt and --llm-prompts exclude each other; give one of them",
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
        "--llm-max-in-flight is for an open loop; give its rate with --llm-rate",
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
