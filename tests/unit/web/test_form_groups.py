"""The groups of options in Locust's start form."""

from __future__ import annotations

from llm_users.options.table import GROUPS, OPTIONS
from llm_users.web.start_form import form_groups


def test_every_option_is_in_its_group_once_and_the_common_ones_come_first() -> None:
    groups = form_groups()
    assert [group["title"] for group in groups] == [f"LLM: {title}" for title in GROUPS]
    names = [option["name"] for group in groups for option in group["options"]]
    assert sorted(names) == sorted(option.dest for option in OPTIONS)
    for group in groups:
        common = [option["common"] for option in group["options"]]
        assert common == sorted(common, reverse=True)
