"""--llm-header: plain headers reach the server on both transports, and credentials are refused."""

from __future__ import annotations

import pytest

from llm_users.options.parsers import OptionError, plain_header


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("X-Session=a=b", ("X-Session", "a=b")),
        ("x-lora-adapter=sql v2", ("x-lora-adapter", "sql v2")),
        ("X-Request-Timeout=5", ("X-Request-Timeout", "5")),
    ],
)
def test_a_plain_header_has_a_name_and_a_value(text: str, expected: tuple[str, str]) -> None:
    assert plain_header(text) == expected


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "Proxy-Authorization", "x-api-key", "api-key", "Ocp-Apim-Subscription-Key", "X-Auth-Token",
        "x-amz-security-token", "Cookie", "X-Client-Secret", "x-goog-api-key", "X-Password",
    ],
)  # fmt: skip
def test_a_header_that_looks_like_a_credential_is_refused_with_the_right_option(name: str) -> None:
    with pytest.raises(OptionError, match=rf"looks like a credential.* --llm-header-env {name}=VARIABLE") as refused:
        plain_header(f"{name}=sk-hidden-1234")
    assert "sk-hidden-1234" not in str(refused.value)


@pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "Connection", "Content-Type"])
def test_headers_of_the_connection_and_the_body_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match="the tool sets the header"):
        plain_header(f"{name}=1")


@pytest.mark.parametrize("text", ["X-A=a\r\nX-B: b", "X-A=a\nb", "X-A=a\0", "X-A=ü", "X A=1", "X-A:1=2", "=1", "X-A"])
def test_what_a_header_cannot_contain_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        plain_header(text)
