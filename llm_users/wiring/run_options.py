"""Checks the objectives in the options before a run starts, and names the tokenizer for the manifest.

Only the report side can parse an expression of objectives, so these checks are not part of the options package.
"""

from __future__ import annotations

from typing import Any

from llm_users.options.parsers import OptionError
from llm_users.options.table import Options
from llm_users.prompts import load_tokenizer


def checked(options: Options, user_classes: list[Any], shape: Any = None) -> Options:
    """Return the options after checking that their objectives are valid and that the users support the options.

    ``shape`` is the LoadTestShape of the locustfile, if it has one. Raises ``OptionError``.
    """
    if options.staged and shape is not None:
        raise OptionError(
            f"the locustfile has a LoadTestShape ({type(shape).__name__}), and --llm-sweep, --llm-rate, --llm-find and "
            "--llm-trace define stages too; leave out one of the two. Without these options each number of users of "
            "the shape becomes a stage with its own figures"
        )
    others = sorted(c.__name__ for c in user_classes if not hasattr(c, "prepare_process"))
    if options.open_loop and others:
        raise OptionError(
            f"an open loop (--llm-rate, --llm-trace) supports only LLM user classes, not {', '.join(others)}; remove "
            "other classes from the locustfile, or name the classes to run after Locust's options"
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
    """Return the name and digest of the tokenizer for the manifest."""
    try:
        tokenizer = load_tokenizer(options.tokenizer)
    except ValueError as error:
        return {"name": options.tokenizer or "default", "error": str(error)}
    return {"name": tokenizer.name, "digest": tokenizer.digest}
