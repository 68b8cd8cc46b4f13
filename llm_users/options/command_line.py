"""The path of options into the program: added to Locust's parser, checked for unknown names, and read as ``Options``.

Locust's parser offers the options on its command line and in its web form, and reads them from configuration files and
environment variables. The parser keeps them as text, so that edits in the web form keep their type.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NoReturn

from llm_users.distributions import LENGTHS, Fixed, Mixed
from llm_users.options import llmperf, rules
from llm_users.options.parsers import OptionError
from llm_users.options.short_help import HELP_ALL
from llm_users.options.table import GROUPS, OPTIONS, OTHER_VARIABLES, Option, Options

_FLAGS, _VARIABLES = "--llm-", "LOCUST_LLM_"
_OF_KUBERNETES = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
"""Variables that Kubernetes sets for a service. The variables of a service called locust-llm look like option
variables. https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables"""


def add_options(parser: Any) -> None:
    """Add all options to Locust's parser, in their groups. The parser then rejects unknown and shortened names."""
    for title in GROUPS:
        group = parser.add_argument_group(f"LLM: {title}")
        for option in OPTIONS:
            if option.group == title:
                settings: dict[str, Any] = {"default": option.default, "metavar": option.metavar}
                if option.switch:
                    settings = {"action": "store_true", "default": False}
                elif option.collect is not None:
                    # Not an empty list: Locust treats an empty list as a list of integers when a user submits its form.
                    settings |= {"action": "append", "type": _checked(option)}
                elif option.choices is not None:
                    # The web form sends the first choice of an option without a default, which must mean "not given".
                    settings["choices"] = option.choices if option.default else ("", *option.choices)
                    if option.name == "api":
                        settings["type"] = _not_of_llmperf
                else:
                    settings["type"] = _checked(option)
                    if option.alone is not None:
                        settings |= {"nargs": "?", "const": option.alone}
                action = group.add_argument(option.flag, help=option.help_line, env_var=option.variable, **settings)
                # LocustArgumentParser.add_argument sets these four; a group has the method of argparse.
                action.include_in_web_ui = True
                action.is_secret = action.is_required = action.is_multiple = False
    _refuse_unknown_flags(parser)


def _checked(option: Option) -> Callable[[str], str]:
    """Return a type for argparse that returns the text unchanged if the option's parser accepts it."""

    def check(text: str) -> str:
        if text != "":  # the web form and configuration files send empty fields
            try:
                option.parse(text)
            except ValueError as error:
                raise argparse.ArgumentTypeError(str(error)) from None  # argparse names the option
        return text

    check.__name__ = option.metavar
    return check


def _not_of_llmperf(api: str) -> str:
    if api in llmperf.APIS:
        raise argparse.ArgumentTypeError(f"{api} is a value of LLMPerf; use {llmperf.APIS[api]}")
    return api


def _refuse_unknown_flags(parser: Any) -> None:
    """Exit with code 2 for ``--llm-`` flags and keys of configuration files that are not the complete name of an
    option, and for the options of LLMPerf.

    argparse accepts any unambiguous prefix of a name, so a misspelled option could become another one. ``allow_abbrev``
    would also forbid shortened names of Locust's own options.
    """
    candidates = parser._get_option_tuples

    def whole_names_only(text: str) -> Any:
        flag = text.partition("=")[0].replace("_", "-")
        if flag.startswith(_FLAGS):
            flags = {flag for action in parser._actions for flag in action.option_strings if flag.startswith(_FLAGS)}
            _refuse(parser, f"option {text.partition('=')[0]}", flag, flags)
        found = candidates(text)
        if not found and llmperf.replaces([text]):
            # All of them in one message: somebody has pasted the command line of LLMPerf.
            known = {*parser._option_string_actions} - {llmperf.API_FLAG}  # a locustfile may add options
            given = [word for word in sys.argv[1:] if word.partition("=")[0] not in known]
            lines = llmperf.replaces(given) or llmperf.replaces([text])
            parser.error("\n  ".join(["LLMPerf's options have other names here.", *lines]))
        return found

    parser._get_option_tuples = whole_names_only


def refuse_unknown_variables(parser: Any) -> None:
    """Exit with code 2 if the environment has a ``LOCUST_LLM_`` variable that no option of the parser reads."""
    variables = {getattr(action, "env_var", None) or "" for action in parser._actions} | {*OTHER_VARIABLES}
    known = {name for name in variables if name.startswith(_VARIABLES)}
    for name in sorted(os.environ):
        if name.startswith(_VARIABLES) and name not in known and not _OF_KUBERNETES.fullmatch(name):
            _refuse(parser, f"environment variable {name}", name, known)


def _refuse(parser: Any, what: str, name: str, known: Iterable[str]) -> NoReturn:
    # The hint is the most similar known name: one that starts with this name, else one that contains it, else by
    # difflib. All names have the same prefix, so only the rest is compared.
    start = len(_FLAGS if name.startswith(_FLAGS) else _VARIABLES)
    word, rests = name[start:], {whole[start:]: whole for whole in sorted(known)}
    longer = [rest for rest in rests if rest.startswith(word)] or [rest for rest in rests if word in rest]
    nearest = difflib.get_close_matches(word, longer or rests, 1, 0.0 if longer else 0.6)
    hint = f"; did you mean {rests[nearest[0]]}?" if nearest else "."
    help_flag = HELP_ALL if HELP_ALL in parser._option_string_actions else "--help"  # only llm-bench has the former
    parser.error(f"unknown {what}{hint} {help_flag} lists all options")
    raise AssertionError("unreachable")


def read_options(parsed: Any) -> Options:
    """Return the options from Locust's parsed options, or the defaults for None. Raises ``OptionError``."""
    values = {option.name: value for option in OPTIONS if (value := _value(option, parsed)) is not None}
    options = Options(**values)
    rules.check(options)
    if options.length_mix is not None:
        input_tokens, output_tokens = options.length_mix
        options = replace(options, input_tokens=input_tokens, output_tokens=output_tokens)
    elif options.length_sweep:  # for estimates of the whole run: each stage has its own lengths
        sizes = zip(*options.length_sweep, strict=True)
        inputs, outputs = (Mixed([1.0] * len(each), [Fixed(LENGTHS, size) for size in each]) for each in sizes)
        options = replace(options, input_tokens=inputs, output_tokens=outputs)
    return options


def as_given(parsed: Any) -> dict[str, Any]:
    """Return the options as the text that the user gave, by their names in the manifest."""
    return {option.dest: getattr(parsed, option.dest, None) for option in OPTIONS}


def _value(option: Option, parsed: Any) -> Any:
    """Return the value for the field of ``Options``, or None if the option is not given."""
    given = getattr(parsed, option.dest, None)
    try:
        if option.switch:
            return given if isinstance(given, bool) else str(given).lower() in ("1", "true", "yes", "on")
        if not given:
            return None
        if option.collect is not None:
            items = given if isinstance(given, list) else str(given).split(",")
            # Empty form fields give "".
            return option.collect(option.parse(str(item)) for item in items if item != "")
        if option.choices and given not in option.choices:
            raise OptionError(f"{given!r} is not one of {', '.join(option.choices)}")
        return option.parse(str(given))
    except ValueError as error:
        raise OptionError(f"{option.flag}: {error}") from None
