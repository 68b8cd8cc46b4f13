"""Base URLs: which hosts are in a private network, where servers usually need no key."""

from __future__ import annotations

import pytest

from llm_users.transport.endpoint import is_in_private_network


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("localhost:8000", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("10.1.2.3", True),
        ("192.168.0.7:30000", True),
        ("vllm:8000", True),
        ("vllm.default.svc:8000", True),
        ("vllm.default.svc.cluster.local:8000", True),
        ("api.openai.com", False),
        ("8.8.8.8", False),
        ("svc.example.com", False),
    ],
)
def test_hosts_of_a_private_network(host: str, private: bool) -> None:
    assert is_in_private_network(f"http://{host}/v1") is private
