"""One endpoint per spec and module: starting one takes longer than most of the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from llm_users.simulator.launch import Simulator, launch

from .wire import Client

FAST = "ttft=1ms,itl=100us,tokens=5"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Callable[..., Simulator]]:
    """Call it with spec keys; they are added to a fast spec."""
    running: dict[str, Simulator] = {}

    def get(more: str = "") -> Simulator:
        if more not in running:
            names = {part.split("=")[0] for part in more.split(",")}
            kept = [part for part in FAST.split(",") if part.split("=")[0] not in names]
            running[more] = launch(",".join(filter(None, [*kept, more])), max_seconds=60)
        return running[more]

    yield get
    for simulator in running.values():
        simulator.stop()


@pytest.fixture
def connect(endpoint: Callable[..., Simulator]) -> Iterator[Callable[..., Client]]:
    """A connection to the endpoint with these spec keys."""
    clients: list[Client] = []

    def get(more: str = "") -> Client:
        clients.append(Client(endpoint(more).port))
        return clients[-1]

    yield get
    for client in clients:
        client.sock.close()
