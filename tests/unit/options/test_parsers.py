"""Values of options that are refused."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ("a=3,,b", "an empty target"),
        ("a=many", "'many' is not a weight"),
        ("a=0", "'0' is not a weight"),
        ("=2", "the model name is missing"),
        ("@http://h/v1", "the model name is missing"),
        ("a@ftp://h/v1", "must start with http:// or https://"),
        ("a@localhost:8000/v1", "must start with http:// or https://"),
        ("a@http:///v1", "the URL has no host"),
        ("a@https://user:secret@h/v1", "neither credentials nor a query"),
        ("a,b,a", "'a' is listed 2 times"),
    ],
)
def test_targets_that_cannot_be(targets: str, words: str) -> None:
    from llm_users.options.parsers import OptionError
    from llm_users.options.parsers import targets as read

    with pytest.raises(OptionError) as refused:
        read(targets)
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)
