"""Every entry of docs/glossary.md leads to a column, a metric or an option that exists, under a heading that exists."""

from __future__ import annotations

import re

import pytest

from llm_users.options.table import OPTIONS
from llm_users.record import CONVERSATION_COLUMNS, REQUEST_COLUMNS, STAGE_COLUMNS
from tests.documented import PAGES

PAGE = PAGES["docs/glossary.md"]
ENTRIES = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| term", "| ---"))
]
COLUMNS = {column.name for column in (*REQUEST_COLUMNS, *STAGE_COLUMNS, *CONVERSATION_COLUMNS)}
METRICS = {"chunk_gap_s", "llmperf_inter_token_latency_s", "summary.csv"}
FLAGS = {option.flag for option in OPTIONS} | {"llm-report --slo"}
WANTED = ("TTFT", "TPOT", "ITL", "TTFAT", "E2E", "goodput", "RPS", "closed loop", "open loop", "concurrency")


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry[0])
def test_an_entry_leads_to_something_that_exists(entry: list[str]) -> None:
    here = entry[2]
    names = re.findall(r"`([^`]+)`", here)
    assert names or "](" in here
    assert set(names) <= COLUMNS | METRICS | FLAGS
    for page, fragment in re.findall(r"\]\(([\w-]+\.md)#([^)]+)\)", here):
        headings = re.findall(r"^#+ (.*)$", PAGES[f"docs/{page}"], flags=re.MULTILINE)
        assert fragment in {anchor(heading) for heading in headings}, here


def test_the_terms_that_people_search_for_are_there() -> None:
    assert set(WANTED) <= {entry[0] for entry in ENTRIES}
    for tool_name in ("ICL", "TTFO", "QPS", "OSL", "ISL"):
        assert tool_name in PAGE
