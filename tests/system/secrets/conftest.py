"""The places that were searched, and where runs happen."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stream_bytes import reply
from tests.system.secrets.searching import AWS_ID, AWS_SECRET, AWS_TOKEN, HEADER, KEY, Search, Surroundings
from tests.wire_server import Wire


@pytest.fixture(scope="package")
def search() -> Search:
    return Search()


@pytest.fixture(scope="package")
def wire() -> Iterator[Wire]:
    with Wire() as running:
        yield running


@pytest.fixture
def surroundings(tmp_path: Path, wire: Wire) -> Surroundings:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LOCUST_", "OPENAI_", "ANTHROPIC_", "AWS_")) and not name.lower().endswith("_proxy")
    }
    refusal = reply(
        "403 Forbidden", {"message": f"no {AWS_TOKEN} {AWS_ID}"}, more=f"x-amzn-RequestId: {AWS_SECRET}\r\n"
    )
    return Surroundings(
        tmp_path,
        {
            **kept,
            "OPENAI_API_KEY": KEY,
            "GATEWAY_TOKEN": HEADER,
            "AWS_ACCESS_KEY_ID": AWS_ID,
            "AWS_SECRET_ACCESS_KEY": AWS_SECRET,
            "AWS_SESSION_TOKEN": AWS_TOKEN,
            "AWS_ECHO": wire.serve(refusal).root,
            "WIRETAP": str(tmp_path / "messages.bin"),
            "NO_COLOR": "1",
            "PYTHONWARNINGS": "ignore",
        },
    )
