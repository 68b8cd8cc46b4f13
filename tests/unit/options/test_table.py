"""The table of options: names, defaults and the types of fields."""

from __future__ import annotations

from dataclasses import fields

import pytest

from llm_users.options.parsers import Warmup
from llm_users.options.table import GROUPS, OPTIONS, READS_LOCAL, STAGING, Option, Options, option_named


def test_a_field_gives_all_names_of_an_option() -> None:
    option = option_named("stage_time_s")
    assert (option.flag, option.dest, option.variable) == (
        "--llm-stage-time", "llm_stage_time", "LOCUST_LLM_STAGE_TIME",
    )  # fmt: skip
    assert [each.name for each in OPTIONS] == [field.name for field in fields(Options)]
    assert len({each.flag for each in OPTIONS}) == len(OPTIONS)


def test_options_stand_in_the_order_of_their_groups() -> None:
    places = [GROUPS.index(option.group) for option in OPTIONS]
    assert places == sorted(places)
    assert set(places) == set(range(len(GROUPS)))


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.default], ids=lambda option: option.flag)
def test_a_default_is_stated_once(option: Option) -> None:
    """The field has the parsed default, and the help does not repeat what stands beside it."""
    assert option.default is not None
    assert getattr(Options(), option.name) == option.parse(option.default)
    assert "default" not in option.help.lower()


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.flag)
def test_the_help_of_an_option_is_one_line(option: Option) -> None:
    assert 0 < len(option.help_line) <= 54, "a terminal of 80 columns has 54 beside the names of the options"
    assert not option.help.endswith(".")
    assert not option.details.endswith(".")


def test_a_field_without_a_default_text_is_empty() -> None:
    for option in OPTIONS:
        if not option.default:
            assert getattr(Options(), option.name) in (None, False, (), {}), option.flag


def test_options_that_read_the_machine_or_make_stages_are_named() -> None:
    assert {"llm_prompts", "llm_header_env", "llm_prices", "llm_tokenizer"} <= set(READS_LOCAL)
    assert set(STAGING) == {"llm_sweep", "llm_rate", "llm_find", "llm_trace"}


def test_a_ramp_is_the_default_only_after_a_warmup() -> None:
    assert Options().stage_ramp_s == 0.5
    assert Options(warmup=Warmup()).stage_ramp_s == 0
    assert Options(warmup=Warmup(), ramp_s=2.0).stage_ramp_s == 2
    assert Options(ramp_s=0.0).stage_ramp_s == 0


def test_a_trace_has_no_warmup() -> None:
    assert Options().stage_warmup == Warmup(requests=1)
    assert Options(trace="a.jsonl").stage_warmup == Warmup()


def test_defaults_are_not_shared() -> None:
    Options().extra_body["changed"] = True
    assert Options().extra_body == {}
