"""Values of options that are refused."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ("a=3,,b", "an empty target"),
        ("a=many", "'many' is no weight"),
        ("a=0", "'0' is no weight"),
        ("=2", "names no model"),
        ("@http://h/v1", "names no model"),
        ("a@ftp://h/v1", "must start with http:// or https://"),
        ("a@localhost:8000/v1", "must start with http:// or https://"),
        ("a@http:///v1", "names no host"),
        ("a@https://user:secret@h/v1", "neither credentials nor a query"),
        ("a,b,a", "'a' is there 2 times"),
    ],
)
def test_targets_that_cannot_be(targets: str, words: str) -> None:
    from llm_users.options.parsers import OptionError
    from llm_users.options.parsers import targets as read

    with pytest.raises(OptionError) as refused:
        read(targets)
    assert words in str(refused.value)
    assert "secret" not in str(refused.value)
