"""A scripted server, the simulated Bedrock, and users of both, with nobody's credentials."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from llm_users import BedrockUser
from llm_users.load.worker import admission_gate
from llm_users.prompts import load_tokenizer
from llm_users.simulator.launch import Simulator, launch
from tests.aws_environment import share_service_models, use_example_credentials
from tests.unit.users.bedrock.frames import MODEL
from tests.unit.users.rig import Rig
from tests.wire_server import Wire


@pytest.fixture(scope="package", autouse=True)
def own_environment() -> Iterator[None]:
    """No credentials, regions or settings of whoever runs the tests, and no question to an EC2 instance."""
    with pytest.MonkeyPatch.context() as patch:
        use_example_credentials(patch)
        share_service_models(patch)
        load = functools.cache(load_tokenizer)  # half a second for every rig otherwise
        patch.setattr("llm_users.load.worker.process.load_tokenizer", load)
        patch.setattr("llm_users.wiring.run_options.load_tokenizer", load)
        patch.setattr(admission_gate, "BACKOFF_FIRST_S", 0.0)
        patch.setattr(admission_gate, "GIVE_UP_AFTER", 10**9)
        yield


@pytest.fixture(scope="package")
def wire() -> Iterator[Wire]:
    with Wire() as running:
        yield running


@pytest.fixture(scope="package")
def simulate() -> Iterator[Callable[[str], str]]:
    """Call it with a spec; the base URL of an endpoint that does so. Equal specs share one."""
    running: dict[str, Simulator] = {}

    def url(spec: str) -> str:
        if spec not in running:
            running[spec] = launch(spec)
        return running[spec].url.removesuffix("/v1")

    yield url
    for simulator in running.values():
        simulator.stop()


@contextmanager
def rigs_in(folders: pytest.TempPathFactory) -> Iterator[Callable[..., Rig]]:
    """Call what it gives with options; the rigs are stopped at the end."""
    rigs: list[Rig] = []

    def make(**options: object) -> Rig:
        options = {"user_class": BedrockUser, "llm_model": MODEL, "host": "http://127.0.0.1:9", **options}
        rigs.append(Rig(folders.mktemp("run"), **options))  # type: ignore[arg-type]
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.stop()


@pytest.fixture
def make_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Rig]]:
    """Rigs of one test."""
    with rigs_in(tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="package")
def rig_with(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Rig]]:
    """Rigs for all tests: equal options share one."""
    with rigs_in(tmp_path_factory) as make:
        yield functools.cache(make)


@pytest.fixture
def rig(rig_with: Callable[..., Rig]) -> Rig:
    """A running test with default options, whose event log is empty."""
    shared = rig_with()
    for log in vars(shared.seen).values():
        log.clear()
    return shared
