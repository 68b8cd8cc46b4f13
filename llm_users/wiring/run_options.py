"""The options of a run as the coordinator needs them: objectives checked before anything starts, the tokenizer named.

What an expression means is known to the report side alone, so this cannot stand beside the options themselves.
"""

from __future__ import annotations

from typing import Any

from llm_users.options.parsers import OptionError
from llm_users.options.table import Options
from llm_users.prompts import load_tokenizer


def checked(options: Options, user_classes: list[Any], shape: Any = None) -> Options:
    """The options, once their objectives are known to be some and the users to be able to do what they say.

    ``shape``: the LoadTestShape of the locustfile, if it has one.
    """
    if options.staged and shape is not None:
        raise OptionError(
            f"the locustfile has a LoadTestShape ({type(shape).__name__}), and --llm-sweep, --llm-rate, --llm-find and "
            "--llm-trace have their own stages; leave out one of the two. Without these options each number of users "
            "of the shape becomes a stage with its own figures"
        )
    others = sorted(c.__name__ for c in user_classes if not hasattr(c, "prepare_process"))
    if options.open_loop and others:
        raise OptionError(
            f"an open loop (--llm-rate, --llm-trace) is for LLM users only, and {', '.join(others)} is none; name the "
            "classes that shall run after Locust's options, or leave that one out"
        )
    for flag, expression in (("--llm-slo", options.slo), ("--llm-find", options.find)):
        if expression is None:
            continue
        import llm_reports

        try:
            llm_reports.parse_objectives(expression)
        except llm_reports.InputError as error:
            raise OptionError(f"{flag}: {error}") from None
    return options


def tokenizer_identity(options: Options) -> dict[str, str]:
    """The tokenizer by name and digest, for the manifest."""
    try:
        tokenizer = load_tokenizer(options.tokenizer)
    except ValueError as error:
        return {"name": options.tokenizer or "default", "error": str(error)}
    return {"name": tokenizer.name, "digest": tokenizer.digest}
