"""A user who asks a server that says anything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import llm_users.extension  # noqa: F401 - Locust patches the interpreter before anything opens a socket
from llm_users.load.worker import admission_gate
from tests.unit.users.rig import Rig
from tests.wire_server import Wire


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with Wire() as running:
        yield running


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission_gate, "BACKOFF_FIRST_S", 0.0)
        patch.setattr(admission_gate, "GIVE_UP_AFTER", 10**9)
        patch.delenv("OPENAI_API_KEY", raising=False)
        made = Rig(tmp_path_factory.mktemp("run"), llm_timeout="1s")
        yield made
        made.stop()
