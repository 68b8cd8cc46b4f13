"""What the command line says of a value that cannot be used."""

from __future__ import annotations

import configargparse
import pytest

from llm_users.options.command_line import add_options, read_options


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
