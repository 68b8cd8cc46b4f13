"""From the declaration of an option to its behaviour, a reader opens few files."""

from __future__ import annotations

import re

import pytest

from llm_users.options.table import option_named
from tests.project import ROOT

MOST = 8
HELP = {"short_help.py", "llmperf.py"}  # they show options to users; the behaviour does not pass through them


def files_of(name: str) -> list[str]:
    """Product files that declare, parse, read or mention an option by its field, its flag or its manifest name."""
    option = option_named(name)
    word = option.dest.removeprefix("llm_")
    anywhere = re.compile(
        rf'{option.flag}\b(?!-)|"{option.dest}"|\.{option.dest}\b|\b(?:options|o)\.(?:stage_)?{word}(?:_s)?\b'
    )
    in_options = re.compile(rf'\bdef {word}\(|"{option.name}"')
    found = ["llm_users/options/table.py"]
    for path in sorted([*(ROOT / "llm_users").rglob("*.py"), *(ROOT / "reports" / "llm_reports").rglob("*.py")]):
        if path.name in HELP:
            continue
        text = path.read_text(encoding="utf-8")
        if anywhere.search(text) or (path.parent.name == "options" and in_options.search(text)):
            found.append(str(path.relative_to(ROOT)))
    return sorted(set(found))


@pytest.mark.parametrize("name", ["warmup", "stage_time_s", "cancel", "shared_prefix", "requests"])
def test_an_option_touches_few_files(name: str) -> None:
    found = files_of(name)
    print(f"{option_named(name).flag}: {len(found)} files", *found, sep="\n  ")
    assert len(found) <= MOST, "\n".join(found)
