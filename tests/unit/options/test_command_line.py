"""How options reach the program: Locust's parser, configuration files, the environment, and what is refused."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import configargparse
import pytest
from locust.argument_parser import LocustArgumentParser, get_parser

import llm_users.extension  # noqa: F401 - adds the options to Locust's parser
from llm_users.options.command_line import add_options, as_given, read_options, refuse_unknown_variables
from llm_users.options.table import GROUPS, OPTIONS, Options


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Locust's own parser with the options of the extension, in a folder without configuration files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    return get_parser()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--llm-sweep", "1-2"],
            "argument --llm-sweep: '1-2' is not a list of concurrencies; write for example 1,2,4,8",
        ),
        (["--llm-metadata", "gpu"], "argument --llm-metadata: 'gpu' is not of the form NAME=VALUE"),
    ],
)
def test_an_error_names_its_option_once(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """argparse puts "argument --NAME:" in front of what an option's check says."""
    parser = configargparse.ArgumentParser()
    add_options(parser)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.rstrip("\n").endswith(f"error: {said}")


def test_the_web_form_as_it_opens_changes_nothing() -> None:
    """Locust's form posts every field: the default, else the first choice of a list, else an empty text."""
    parser = configargparse.ArgumentParser()
    add_options(parser)
    given, posted = parser.parse_args([]), parser.parse_args([])
    for action in parser._actions:
        if action.dest.startswith("llm_") and not isinstance(action.default, bool):
            first = next(iter(action.choices or ()), "")
            setattr(posted, action.dest, first if action.default is None else action.default)
    assert read_options(posted) == read_options(given)


def test_help_has_the_options_in_their_groups_within_80_columns(parser: Any) -> None:
    text = parser.format_help()
    for group, following in zip(GROUPS, [*GROUPS[1:], ""], strict=True):
        part = text.split(f"LLM: {group}:\n")[1].split(f"LLM: {following}:\n")[0]
        shown = re.findall(r"^  (--llm-\S+)", part, re.MULTILINE)
        assert shown == [option.flag for option in OPTIONS if option.group == group]
    lines = text[text.index(f"LLM: {GROUPS[0]}:") :].split("\nExamples:")[0].splitlines()
    assert max(map(len, lines)) <= 80


def test_the_web_form_has_all_options_in_the_order_of_the_table(parser: LocustArgumentParser) -> None:
    """A group's add_argument does not set the attributes that Locust's form asks for."""
    ours = [name for name in parser.args_included_in_web_ui if name.startswith("llm_")]
    assert ours == [option.dest for option in OPTIONS]
    assert not [name for name in parser.secret_args_included_in_web_ui if name.startswith("llm_")]


def test_every_way_to_give_an_option(parser: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert read_options(parser.parse_args(["--llm-stage-time", "2m"])).stage_time_s == 120
    (tmp_path / "ini.conf").write_text("llm-stage-time = 3s\n")
    (tmp_path / "a.toml").write_text('[tool.locust]\nllm-stage-time = "4s"\n')
    for name, seconds in (("ini.conf", 3), ("a.toml", 4)):
        assert read_options(parser.parse_args(["--config", name])).stage_time_s == seconds
    monkeypatch.setenv("LOCUST_LLM_STAGE_TIME", "5s")
    assert read_options(parser.parse_args(["--config", "a.toml"])).stage_time_s == 5
    assert read_options(Namespace(llm_stage_time="6s")).stage_time_s == 6
    assert as_given(Namespace(llm_stage_time="6s"))["llm_stage_time"] == "6s"


def test_nothing_given_is_all_defaults(parser: Any) -> None:
    assert read_options(parser.parse_args([])) == read_options(None) == Options()


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        ("--llm-prefix", "--llm-shared-prefix"),
        ("--llm-lengths", "--llm-length-sweep"),
        ("--llm-warm", "--llm-warmup"),
        ("--llm-stage", "--llm-stage-time"),
        ("--llm-prompts-o", "--llm-prompts-order"),
        ("--llm-request", "--llm-requests"),
        ("--llm-tokeniser", "--llm-tokenizer"),
        ("--llm_sweep", "--llm-sweep"),
    ],
)
def test_an_unknown_or_shortened_flag_is_refused_with_the_right_name(
    flag: str, nearest: str, parser: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ini.conf").write_text(f"{flag.removeprefix('--')} = 1\n")
    (tmp_path / "a.toml").write_text(f"[tool.locust]\n{flag.removeprefix('--')} = [1, 2]\n")
    for words in ([flag, "1"], [f"{flag}=1"], ["--config", "ini.conf"], ["--config", "a.toml"]):
        with pytest.raises(SystemExit) as ended:
            parser.parse_args(words)
        assert ended.value.code == 2
        assert f"unknown option {flag}; did you mean {nearest}?" in capsys.readouterr().err


def test_a_name_that_resembles_none_gets_no_suggestion(parser: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["--llm-xyzzy"])
    assert capsys.readouterr().err.endswith("unknown option --llm-xyzzy. --help lists all options\n")


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("LOCUST_LLM_PREFIX", "LOCUST_LLM_SHARED_PREFIX"),
        ("LOCUST_LLM_REQUEST", "LOCUST_LLM_REQUESTS"),
        ("LOCUST_LLM_CALIBRATE", "LOCUST_LLM_CALIBRATION"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_right_name(
    variable: str, nearest: str, parser: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(SystemExit) as ended:
        parser.parse_args([])
    assert ended.value.code == 2
    assert f"unknown environment variable {variable}; did you mean {nearest}?" in capsys.readouterr().err


def test_known_variables_are_not_refused(parser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options of a locustfile count, and so do the variables that Kubernetes sets for a service called locust-llm."""
    parser.add_argument("--llm-mine", env_var="LOCUST_LLM_MINE")
    names = ["CALIBRATION", "MINE", "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_WORKERS", "PORT"]
    names += ["PORT_5557_TCP", "PORT_5557_TCP_PROTO", "PORT_5557_TCP_PORT", "PORT_5557_TCP_ADDR", "MASTER_SERVICE_HOST"]
    for name in names:
        monkeypatch.setenv(f"LOCUST_LLM_{name}", "1")
    refuse_unknown_variables(parser)
    assert parser.parse_args([]).llm_mine == "1"


def test_options_of_others_can_still_be_shortened(parser: Any) -> None:
    """Locust's own parser takes shortened names; the extension changes that for its options only."""
    assert parser.parse_args(["--headl"]).headless is True
