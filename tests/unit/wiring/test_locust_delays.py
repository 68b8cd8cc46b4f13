"""Work that Locust would do again for every message."""

from __future__ import annotations

from locust import argument_parser

from llm_users.wiring.locust_delays import avoid_repeated_work


def test_default_arguments_are_built_once() -> None:
    avoid_repeated_work()
    once = argument_parser.default_args_dict
    avoid_repeated_work()
    assert argument_parser.default_args_dict is once
    assert once() is once()
    assert once()["headless"] is False
