"""What the command line says of a value that cannot be used."""

from __future__ import annotations

import configargparse
import pytest

from llm_users.options import register


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
    register(parser)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.rstrip("\n").endswith(f"error: {said}")
