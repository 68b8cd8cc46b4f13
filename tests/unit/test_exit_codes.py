"""The exit codes in docs/exit-codes.md, in the README, in the help of llm-report and in its code agree."""

from __future__ import annotations

import re

import pytest

import llm_reports.main
import llm_reports.report
from llm_reports.arguments import parse
from tests.documented import PAGES

PAGE = PAGES["docs/exit-codes.md"]


def page_column(number: int) -> dict[int, str]:
    """The meanings of the exit codes in one column of the page's table, without links; empty cells are omitted."""
    rows = re.findall(r"^\| (\d+) \| (.*) \| (.*) \|$", PAGE, flags=re.MULTILINE)
    meanings = {int(row[0]): re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", row[number]).strip() for row in rows}
    return {code: meaning for code, meaning in meanings.items() if meaning}


BENCH, REPORT = page_column(1), page_column(2)


def listed(text: str) -> dict[int, str]:
    """The meanings in a list such as "0 success; 1 requests failed; 2 ..."."""
    return {int(code): meaning for code, meaning in re.findall(r"(?:^|; )(\d+) ([^;]+)", text)}


@pytest.mark.parametrize("command", [(), ("compare",), ("leaderboard",)])
def test_the_help_of_llm_report_has_the_codes_of_the_page(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as end:
        parse([*command, "--help"])
    assert end.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    (codes,) = re.findall(r"Exit codes: (.*)\. docs/exit-codes\.md has the codes of all commands\.$", said)
    assert listed(codes) == REPORT


def test_the_codes_of_llm_report_are_those_of_its_code() -> None:
    used = {
        value
        for module in (llm_reports.main, llm_reports.report)
        for name, value in vars(module).items()
        if name.isupper() and type(value) is int
    }
    assert {0, *used} == set(REPORT)


def test_the_readme_has_the_codes_of_a_run_as_on_the_page() -> None:
    readme = " ".join(PAGES["README.md"].split())
    (text,) = re.findall(r"Exit codes of a run: (.*?) \(\[all commands\]\(docs/exit-codes\.md\)\)", readme)
    codes = listed(text)
    assert set(codes) == set(BENCH) - {130}, "130 is not the result of a run, but of Ctrl-C before it"
    for code, meaning in codes.items():
        for part in re.split(r", or |, ", meaning):
            assert part in BENCH[code], f"exit code {code}: {part!r} is not on the page"
