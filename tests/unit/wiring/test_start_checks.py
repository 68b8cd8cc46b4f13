"""Checks of ports: what is in use is refused once, and forked workers get the address of their own master."""

from __future__ import annotations

import socket
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import pytest

from llm_users.options.parsers import OptionError
from llm_users.wiring.start_checks import StartChecks
from tests.ports import free_port


def parsed(**given: Any) -> Namespace:
    return Namespace(
        **{
            "processes": None, "worker": False, "master": False, "headless": True, "headful": False,
            "web_host": "127.0.0.1", "web_port": free_port(), "master_bind_host": "*", "master_bind_port": free_port(),
            "master_host": "127.0.0.1", "master_port": 5557,
        } | given
    )  # fmt: skip


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield int(server.getsockname()[1])


def test_only_the_ports_that_the_process_opens_are_checked(taken: int) -> None:
    StartChecks().run(parsed(web_port=taken, master_bind_port=taken))
    StartChecks().run(parsed(worker=True, headless=False, web_port=taken, master_bind_port=taken))


@pytest.mark.parametrize("bind_host", ["*", "127.0.0.1", "0.0.0.0"])
def test_a_taken_port_of_a_master_is_refused(taken: int, bind_host: str) -> None:
    with pytest.raises(OptionError, match=f"--master-bind-port: port {taken} is in use"):
        StartChecks().run(parsed(master=True, master_bind_host=bind_host, master_bind_port=taken))


@pytest.mark.parametrize("shown", [{"headless": False}, {"headful": True}])
def test_a_taken_port_of_the_page_is_refused(taken: int, shown: dict[str, bool]) -> None:
    with pytest.raises(OptionError, match=f"--web-port: port {taken} is in use"):
        StartChecks().run(parsed(web_port=taken, **shown))


def test_ports_are_checked_once_because_locust_parses_again_when_its_page_is_open() -> None:
    checks, port = StartChecks(), free_port()
    checks.run(parsed(headless=False, web_port=port))
    with socket.socket() as page:
        page.bind(("127.0.0.1", port))
        page.listen()
        checks.run(parsed(headless=False, web_port=port))


@pytest.mark.parametrize(("bind_host", "address"), [("*", "127.0.0.1"), ("127.0.0.1", "127.0.0.1")])
def test_forked_workers_connect_to_the_port_that_their_master_opens(bind_host: str, address: str) -> None:
    options, checks = parsed(processes=2, master_bind_host=bind_host, master_host="other.example"), StartChecks()
    checks.run(options)
    checks.ends_in_order()
    assert (options.master_host, options.master_port) == (address, options.master_bind_port)


def test_workers_of_a_remote_master_keep_its_address() -> None:
    options = parsed(processes=2, worker=True, master_host="other.example")
    StartChecks().run(options)
    assert (options.master_host, options.master_port) == ("other.example", 5557)
