"""Each file of examples/ is read by the option that it is for, in a short run against the simulated endpoint."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.documented import ENVIRONMENT, FAST, Outcome, Site
from tests.project import ROOT

EXAMPLES = ROOT / "examples"
SHORT = ("--headless", "--only-summary", "--llm-warmup", "0", "--llm-ramp", "0s", "--csv", "out/run")
MADE_UP_AWS = {"AWS_ACCESS_KEY_ID": "made-up", "AWS_SECRET_ACCESS_KEY": "made-up"}


@dataclass(frozen=True)
class Use:
    """The options that read a file, the rows to expect, and values of columns that come from the file."""

    arguments: tuple[str, ...]
    rows: int
    column: str = "error_code"
    values: tuple[str, ...] = ("",)


PROMPTS = ("llm-bench", "--llm-sweep", "1", "--llm-output-tokens", "8,2", "--llm-prompts-order", "file")
USES = {
    "prompts.jsonl": Use(
        (*PROMPTS, "--llm-requests", "5", "--llm-prompts", "examples/prompts.jsonl"), 5,
        "requested_output_tokens", ("40", "50", "60"),
    ),
    "prompts.txt": Use((*PROMPTS, "--llm-requests", "3", "--llm-prompts", "examples/prompts.txt"), 3),
    "tickets.csv": Use(
        (*PROMPTS, "--llm-requests", "3", "--llm-prompts", "examples/tickets.csv:question"), 3,
        "requested_output_tokens", ("60", "80", "120"),
    ),
    "images": Use(
        (*PROMPTS, "--llm-requests", "2", "--llm-prompt", "What is this?", "--llm-images", "examples/images"), 2,
    ),
    "conversations.jsonl": Use(
        ("locust", "-f", "locustfiles/conversations.py", "--llm-sweep", "1", "--llm-requests", "5", "--llm-think-time",
         "10ms", "--llm-conversations", "examples/conversations.jsonl"), 5,
        "conversation_id", ("rivers", "lakes", "seas"),
    ),
    "trace.jsonl": Use(("llm-bench", "--llm-trace", "examples/trace.jsonl", "--llm-trace-unit", "ms"), 4,
                       "requested_output_tokens", ("6", "8", "10", "12")),
    "trace.csv": Use(("llm-bench", "--llm-trace", "examples/trace.csv"), 4,
                     "requested_output_tokens", ("6", "8", "10", "12")),
    "invoke-format.json": Use(
        ("locust", "-f", "locustfiles/bedrock.py", "--llm-model", "meta.my-imported-model", "--llm-api", "invoke",
         "--llm-invoke-format", "examples/invoke-format.json", "--llm-sweep", "1", "--llm-requests", "3",
         "--llm-input-tokens", "20,5", "--llm-output-tokens", "8,2"), 3,
    ),
    "gate.conf": Use(("llm-bench", "--config", "examples/gate.conf"), 400),
}  # fmt: skip


def in_folder(folder: Path) -> Site:
    for name in ("examples", "locustfiles"):
        (folder / name).symlink_to(ROOT / name)
    return Site(folder, "", {**ENVIRONMENT, **MADE_UP_AWS})


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "out" / "run_llm_requests.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["measured"] == "1"]


@pytest.mark.parametrize("name", USES)
def test_an_option_reads_the_example(name: str, tmp_path: Path) -> None:
    use = USES[name]
    done = in_folder(tmp_path).run([*use.arguments, *SHORT, "--llm-simulator", FAST])
    assert done.code == 0, done.out + done.err
    measured = rows(tmp_path)
    assert len(measured) == use.rows
    assert {row["error_code"] for row in measured} == {""}
    found = {row[use.column] for row in measured}
    assert all(any(value in cell for cell in found) for value in use.values), found


@pytest.mark.parametrize("name", ["prices.toml", "prices.json"])
def test_the_costs_come_from_the_price_file(name: str, tmp_path: Path) -> None:
    model = "simulated" if name.endswith("json") else "llama-3-8b"
    site = in_folder(tmp_path)
    words = ["llm-bench", *SHORT, "--llm-sweep", "1", "--llm-requests", "3", "--llm-output-tokens", "8,2"]
    words += ["--llm-simulator", FAST, "--llm-model", model, "--llm-prices", f"examples/{name}", "--llm-report"]
    done = site.run(words)
    assert done.code == 0, done.err
    assert "USD" in (tmp_path / "out" / "run_report" / "report.md").read_text()
    again = site.run(["llm-report", "out/run", "--prices", f"examples/{name}"])
    assert again.code == 0, again.err
    assert "USD" in again.out


def test_gate_conf_decides_the_exit_code(tmp_path: Path) -> None:
    def gate(*more: str) -> Outcome:
        return in_folder(tmp_path).run(["llm-bench", "--config", "examples/gate.conf", "--llm-requests", "20", *more])

    done = gate("--llm-simulator", FAST)
    assert done.code == 3
    assert "undecided" in done.out
    manifest = json.loads((tmp_path / "out" / "gate_llm_run.json").read_text())
    assert manifest["options"]["llm_sweep"] == "8"


def test_every_example_is_in_the_index_and_has_a_test() -> None:
    index = (EXAMPLES / "README.md").read_text()
    names = {path.name for path in EXAMPLES.iterdir()} - {"README.md"}
    assert names == {*USES, "prices.toml", "prices.json"}
    targets = {target.rstrip("/") for target in re.findall(r"\]\(([^)]+)\)", index)}
    assert {target for target in targets if not target.startswith("..")} == names
    assert all((EXAMPLES / target).exists() for target in targets)
