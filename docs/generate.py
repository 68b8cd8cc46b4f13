"""Writes options.md, columns.md and simulator.md from the tables in the code, and the modules in CONTRIBUTING.md.

A test compares them.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llm_users.number_words import duration_text
from llm_users.options.table import GROUPS, OPTIONS, Option
from llm_users.record import CONVERSATION_COLUMNS, REQUEST_COLUMNS, STAGE_COLUMNS, Column
from llm_users.simulator.spec import FAULTS_BEFORE_ANSWER, FAULTS_IN_ANSWER, Spec

DOCS = Path(__file__).resolve().parent
_MODULES = "<!-- Begin of the list by `make docs`. -->", "<!-- End of the list. -->"
_PACKAGES = "llm_users", "reports/llm_reports"
_MADE = "<!-- Made by `make docs` from {source}; edit it there. -->"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def options() -> str:
    text = (
        "You can give each option on the command line, in Locust's web form, in `locust.conf` or its TOML files, and\n"
        "as an environment variable: `--llm-stage-time` is `llm-stage-time` in a file and `LOCUST_LLM_STAGE_TIME` in\n"
        "the environment. Write names in full: an unknown or shortened name ends the command with exit code 2. Write\n"
        "times with the units us, ms, s, m and h: `500ms`, `10s`, `1m30s`. A number without a unit means seconds.\n"
        "Locust's own options (`--host`, `--headless`, `--csv`, `--run-time`, `--stop-timeout`, ...) work together\n"
        "with them."
    )
    parts = []
    for group in GROUPS:
        rows = [
            [
                f"`{option.flag}{_value(option)}`",
                ". ".join(filter(None, (option.help, option.details))),
                f"`{option.default}`" if option.default else "",
            ]
            for option in OPTIONS
            if option.group == group
        ]
        parts += [f"## LLM: {group}", table(["option", "meaning", "default"], rows)]
    return _page("Options", "llm_users/options/table.py", text, *parts)


def _value(option: Option) -> str:
    if option.switch:
        return ""
    return f" {option.metavar}" if option.alone is None else f" [{option.metavar}]"


def columns() -> str:
    def rows(of: Iterable[Column]) -> list[list[str]]:
        return [[f"`{column.name}`", column.unit, column.meaning] for column in of]

    head = ["column", "unit", "meaning"]
    return _page(
        "Columns",
        "llm_users/record.py",
        "An empty cell means: not measured. What t0, c1, cK and N are is said in [metrics.md](metrics.md).",
        "## `PREFIX_llm_requests.csv`: one row per request",
        table(head, rows(REQUEST_COLUMNS)),
        "## `PREFIX_llm_stages.csv`: one row per stage",
        table(head, rows(STAGE_COLUMNS)),
        "## `PREFIX_llm_conversations.csv`: one row per conversation, where users hold them",
        table(head, rows(CONVERSATION_COLUMNS)),
    )


def simulator() -> str:
    rows = [
        [f"`{field.metadata['key']}`", field.metadata["meaning"], _default(field)] for field in dataclasses.fields(Spec)
    ]
    return _page(
        "The simulated endpoint",
        "llm_users/simulator/spec.py",
        "`--llm-simulator ttft=150ms,itl=12ms,capacity=8` starts it beside a run; `llm-simulator --ttft 150ms` alone.\n"
        "It speaks the OpenAI API (chat completions, legacy completions, responses), Anthropic's Messages API and AWS\n"
        "Bedrock's runtime API (ConverseStream, Converse, InvokeModelWithResponseStream, InvokeModel) with known\n"
        "timing: token k leaves at arrival + ttft + k * itl. It prints the base URL for `--host`; boto3's endpoint is\n"
        "the same without `/v1`.\n"
        "`--log FILE` writes when each token left, one JSON line per request. Write times\n"
        "with their unit: `50us`, `200ms`, `1m30s`.",
        table(["key", "meaning", "default"], rows),
        "## Faults",
        "`fault=reset:0.01+stall@20:0.01`: one streamed request in a hundred is reset before its headers, another\n"
        "one meets silence after 20 tokens. What rows say about it: [faults.md](faults.md).",
        table(
            ["fault", "what happens"],
            [[f"`{kind}`", meaning] for kind, meaning in FAULTS_BEFORE_ANSWER.items()]
            + [[f"`{kind}@TOKENS`", f"after TOKENS tokens: {meaning}"] for kind, meaning in FAULTS_IN_ANSWER.items()],
        ),
    )


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if isinstance(value, bool):
        return "`on`" if value else "`off`"
    if value in ("", ()):
        return ""
    # Durations are the fields with seconds in their name.
    if field.name.endswith("_s"):
        return f"`{duration_text(value)}`"
    return f"`{value:g}`" if type(value) is float else f"`{value}`"


def pages() -> dict[str, str]:
    """Content by file name."""
    return {
        "options.md": options(),
        "columns.md": columns(),
        "simulator.md": simulator(),
        "../CONTRIBUTING.md": contributing(),
    }


def contributing() -> str:
    """CONTRIBUTING.md with the first sentence of every module's docstring, by folder."""
    page = (DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    parts = []
    folders = sorted({path.parent for root in _PACKAGES for path in (DOCS.parent / root).rglob("*.py")})
    for folder in folders:
        modules = [path for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")]
        if modules:
            lines = [f"- `{path.name}`: {_first_sentence(path)}" for path in modules]
            parts += [f"**{folder.relative_to(DOCS.parent)}/**", "\n".join(lines)]
    before, after = (page.index(mark) for mark in _MODULES)
    return f"{page[:before]}{_MODULES[0]}\n\n" + "\n\n".join(parts) + f"\n\n{page[after:]}"


def _first_sentence(path: Path) -> str:
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())
    return re.split(r"(?<=[a-z)`\"0-9]{2})\.(?= |$)|:$", text)[0].replace("``", "`")


def _page(title: str, source: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", _MADE.format(source=source), *parts]) + "\n"


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
