"""One scripted server and one rig per set of options for the whole session: starting them takes longer than a test."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest

from llm_users import AnthropicUser
from llm_users.load.worker import admission_gate
from tests.unit.users.rig import Rig
from tests.wire_server import Wire


@pytest.fixture(scope="package")
def wire() -> Iterator[Wire]:
    with Wire() as running:
        yield running


@pytest.fixture(scope="package")
def make_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Rig]]:
    """Call it with options; the rig is stopped at the end."""
    rigs: list[Rig] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission_gate, "BACKOFF_FIRST_S", 0.0)  # failures are what most tests are about
        patch.setattr(admission_gate, "GIVE_UP_AFTER", 10**9)
        patch.delenv("OPENAI_API_KEY", raising=False)

        def make(**options: object) -> Rig:
            rigs.append(Rig(tmp_path_factory.mktemp("run"), **options))  # type: ignore[arg-type]
            return rigs[-1]

        yield make
        for rig in rigs:
            rig.stop()


@pytest.fixture(scope="package")
def rig_with(make_rig: Callable[..., Rig]) -> Callable[..., Rig]:
    """Call it with options; equal options share a rig."""
    return functools.cache(make_rig)


@pytest.fixture(scope="package")
def shared_rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


@pytest.fixture
def rig(shared_rig: Rig) -> Rig:
    """A running test with default options, whose event log is empty."""
    for log in vars(shared_rig.seen).values():
        log.clear()
    return shared_rig


@pytest.fixture(scope="package")
def shared_claude(make_rig: Callable[..., Rig]) -> Rig:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
            patch.delenv(name, raising=False)
        return make_rig(user_class=AnthropicUser)


@pytest.fixture
def claude(shared_claude: Rig) -> Rig:
    """The same for the Messages API."""
    for log in vars(shared_claude.seen).values():
        log.clear()
    return shared_claude
