"""The documentation matches the code: generated pages are current, links are valid, options exist.

``tests/system/docs`` (``make test-system SUITE=docs``) runs the commands and locustfiles of the pages.
"""

from __future__ import annotations

import json
import re
import runpy
from itertools import pairwise

import pytest

from llm_users.collect.client_health import _COALESCED, _LATE_S, _LIMITS
from llm_users.options.table import OPTIONS
from llm_users.prices import Prices
from tests.documented import PAGES, ROOT, Command, commands

SERVERS = ("OpenAI", "Azure", "OpenRouter", "Together", "Groq", "Fireworks", "Databricks",
           "vLLM", "SGLang", "llama.cpp", "Ollama", "LiteLLM")  # fmt: skip


def test_generated_pages_are_current() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    for name, text in pages.items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, f"docs/{name} is outdated: run `make docs`"


def test_every_option_in_the_pages_exists() -> None:
    known = {option.flag for option in OPTIONS}
    for page, text in PAGES.items():
        # LLMPerf has an --llm-api too, and a trailing dash is a family of options.
        assert set(re.findall(r"--llm-[a-z-]*[a-z]", text)) <= known, page


def test_links_lead_to_files_and_headings_that_exist() -> None:
    anchors = {(ROOT / page).resolve(): _anchors(text) for page, text in PAGES.items()}
    for page, text in PAGES.items():
        for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
            path = ((ROOT / page).parent / target if target else ROOT / page).resolve()
            assert path.exists(), f"{page} links to {target}"
            assert not anchor or anchor in anchors[path], f"{page} links to #{anchor} of {path.name}"


def _anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    without_blocks = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", without_blocks, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_links_each_page_in_exactly_one_group() -> None:
    groups = re.split(r"^## (.+)$", PAGES["docs/README.md"], flags=re.MULTILINE)[1:]
    assert groups[::2] == ["Start", "How-to", "Reference", "Internals"]
    linked = re.findall(r"\]\(([^)#]+)\)", "".join(groups[1::2]))
    pages = {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")} - {"README.md"}
    assert sorted(linked) == sorted({*pages, "../README.md", "../CONTRIBUTING.md", "../examples/README.md"})


def test_no_page_is_long() -> None:
    generated = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    for page, text in PAGES.items():
        if page.startswith("docs/") and page.removeprefix("docs/") not in generated:
            assert text.count("\n") <= 200, f"{page}: split it by task"


def test_make_targets_in_the_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {name for text in PAGES.values() for name in re.findall(r"`make ([a-z][a-z-]*)", text)}
    assert named <= targets


def test_locustfiles_in_the_pages_exist() -> None:
    named = {name for text in PAGES.values() for name in re.findall(r"\blocustfiles/\w+\.py", text)}
    assert named
    assert all((ROOT / name).is_file() for name in named)


FILE_OPTIONS = ("--llm-prompts", "--llm-conversations", "--llm-trace", "--llm-prices", "--prices", "--config",
                "--llm-invoke-format")  # fmt: skip


def test_every_file_that_a_command_reads_is_in_the_repository() -> None:
    read = {
        word.partition(".csv:")[0] + (".csv" if ".csv:" in word else "")
        for command in commands()
        for before, word in pairwise(command.words)
        if before in FILE_OPTIONS
    }
    assert "examples/prompts.jsonl" in read
    assert not [name for name in read if not name.startswith("hf:") and not (ROOT / name).is_file()]


def test_the_limits_of_client_health_equal_those_in_the_code() -> None:
    page = PAGES["docs/client-health.md"]
    for limit in _LIMITS + _COALESCED:
        row = re.search(rf"^\| `{limit.name}` \| ([\d.]+)(?: s)? \| ([\d.]+)(?: s)? \|$", page, flags=re.MULTILINE)
        assert row, limit.name
        assert (float(row[1]), float(row[2])) == (limit.strained_from, limit.saturated_from)
    assert f"lag p99 from {_LATE_S:g} s" in page


@pytest.mark.parametrize("command", [command for command in commands() if command.program == "make"], ids=str)
def test_a_make_command_has_a_target_and_variables_of_the_makefile(command: Command) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in command.words[1:]:
        name, is_variable, _ = word.partition("=")
        assert f"$({name})" in makefile if is_variable else re.search(rf"^{name}:", makefile, flags=re.MULTILINE)


def test_every_server_has_a_command() -> None:
    parts = re.split(r"^### (\S+).*$", PAGES["docs/recipes.md"], flags=re.MULTILINE)
    assert tuple(parts[1::2]) == SERVERS
    assert all("```sh" in part for part in parts[2::2])


def test_the_llmperf_command_of_the_readme_ends_with_llmperfs_files() -> None:
    """LLMPerf writes its two JSON files after each run; here ``llm-report`` writes them."""
    ours = PAGES["README.md"].partition("## Coming from LLMPerf")[2].partition("```sh")[2].partition("```")[0]
    prefix = re.search(r"--csv (\S+)", ours)
    assert prefix is not None
    assert f"\nllm-report {prefix[1]} --format json\n" in ours


def test_the_policy_for_bedrock_names_the_model_in_each_region_and_only_through_the_profile() -> None:
    (text,) = [
        part
        for part in re.findall(r"```json\n(.*?)```", PAGES["docs/bedrock-quota.md"], re.DOTALL)
        if "Version" in part
    ]
    statements = {statement["Sid"]: statement for statement in json.loads(text)["Statement"]}
    profile, models = statements["Profile"], statements["ModelThroughProfile"]
    actions = {"bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"}
    assert set(profile["Action"]) == set(models["Action"]) == actions
    assert models["Condition"]["StringEquals"]["bedrock:InferenceProfileArn"] == profile["Resource"]
    model = profile["Resource"].partition("inference-profile/us.")[2]
    arn = re.compile(rf"arn:aws:bedrock:us-[a-z]+-\d::foundation-model/{re.escape(model)}")
    assert all(arn.fullmatch(resource) for resource in models["Resource"])
    assert "*" not in str(profile) + str(models) + str(statements["ModelWithoutProfile"])


def test_the_example_prices_cover_nova_and_claude_and_say_where_they_come_from() -> None:
    path = ROOT / "examples" / "prices.json"
    prices = Prices.read(path)
    for model in ("us.amazon.nova-lite-v1:0", "global.anthropic.claude-haiku-4-5-20251001-v1:0"):
        assert prices.of_model(model) is not None
    about = json.loads(path.read_text())["about"]
    assert "Example values" in about
    assert "https://aws.amazon.com/bedrock/pricing/" in about
