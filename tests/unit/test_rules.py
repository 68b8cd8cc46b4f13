"""The rules of ``code_rules.py`` hold, except for the violations in ``known_violations.txt``, which only shrink."""

from __future__ import annotations

import pytest

from tests.unit import code_rules
from tests.unit.code_rules import KNOWN, RULES, difference, known_violations, text_of


@pytest.mark.parametrize("rule", RULES)
def test_there_are_no_violations_besides_the_known_ones(rule: str) -> None:
    new = difference(RULES[rule](), known_violations()[rule])
    assert not new, f"new violations:\n{text_of(rule, new)}"


@pytest.mark.parametrize("rule", RULES)
def test_known_violations_still_exist(rule: str) -> None:
    gone = difference(known_violations()[rule], RULES[rule]())
    assert not gone, f"run `python -m tests.unit.code_rules`; these exist no more:\n{text_of(rule, gone)}"


def test_the_list_has_the_form_in_which_it_is_written() -> None:
    assert KNOWN.read_text(encoding="utf-8") == code_rules.shortened()
