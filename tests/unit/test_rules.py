"""The rules of ``code_rules.py`` hold, except for the violations in ``known_violations.txt``, which only shrink."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from llm_users.record import COL
from tests.unit import code_rules
from tests.unit.code_rules import KNOWN, RULES, difference, known_violations, text_of
from tests.unit.source_tree import product_modules, tree_of


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


ONE = """
from llm_users.web.two import Two

class One:
    def __init__(self):
        self._hidden_in_one = "ttft_s"
        self.file = "x_llm_rows.csv"
"""
TWO = """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_users.web.one import One

class Two:
    def read(self, one):
        \"\"\"ttft_s\"\"\"
        return one._hidden_in_one, "ttft_s", f"{one}_llm_rows.csv", self._own

    def __init__(self):
        self._own = 1
"""


def test_the_rules_find_violations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {}
    for name, text in {"llm_users.web.one": ONE, "llm_users.web.two": TWO}.items():
        modules[name] = tmp_path / name
        modules[name].write_text(text)
    monkeypatch.setattr(code_rules, "product_modules", lambda: modules)
    both = frozenset(modules)
    assert code_rules.import_cycles.__wrapped__() == {
        "llm_users.web.one": {"llm_users.web.two"},
        "llm_users.web.two": {"llm_users.web.one"},
    }
    assert code_rules.private_access.__wrapped__() == {"_hidden_in_one": {"llm_users.web.two"}}
    assert code_rules.column_literals.__wrapped__() == {"ttft_s": both}
    assert code_rules.run_file_literals.__wrapped__() == {"_llm_rows": both}


def test_the_product_reads_only_declared_columns() -> None:
    """``COL.x`` raises AttributeError when it runs; this test finds a misspelled name in code that no test runs."""
    names = {
        (module, node.attr)
        for module, path in product_modules().items()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "COL"
    }
    assert len(names) > 200
    assert not {(module, name) for module, name in names if not hasattr(COL, name)}
