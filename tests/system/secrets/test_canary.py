"""Marked secrets go in wherever secrets go in; nothing that comes out may hold one of them.

Real Locust processes run, everything that they print, write, serve and send to each other is searched. The list of
places is printed at the end.
"""

from __future__ import annotations

import base64
import json
import socket
import subprocess
from collections.abc import Callable

import pytest

from tests.forward_proxy import ForwardProxy
from tests.stream_bytes import DONE, chat_events, delta, event, reply, stream
from tests.system.secrets.searching import (
    HEADER,
    HOSTILE,
    KEY,
    PAGES,
    PASSWORD,
    PROXY_PASSWORD,
    QUERY,
    SECRETS,
    SHAPED,
    Search,
    Surroundings,
    checked,
    end,
    fetched,
    quote,
    spellings,
    through_proxy,
    wait_for,
)
from tests.wire_server import CLOSE, RESET, Port, Script, Wire, pause


def echoes(*secrets: str) -> list[Script]:
    """Answers of all kinds, good and bad, that repeat what they were sent."""
    said = " ".join(secrets)
    failure = {"error": {"message": f"Incorrect API key provided: {said}", "code": said, "type": "auth"}}
    ids = f"x-request-id: {secrets[0]}\r\n"
    good = stream([*chat_events("fine")], more=ids)
    return [
        good,
        reply("401 Unauthorized", failure, more=ids),
        stream([delta(content="a"), event({"error": {"message": f"no more for {said}", "code": KEY}})], more=ids),
        stream([event({"id": said, "choices": [{"index": 0, "delta": {"content": said}, "finish_reason": None}]}),
                delta(said), DONE]),
        stream([event({"error": {"message": HOSTILE, "code": HOSTILE}})]),
        stream([event({"id": HOSTILE, "choices": [{"index": 0, "delta": {"content": HOSTILE}}]}), delta(HOSTILE)]),
        reply("500 Internal Server Error", f"<html><body><h1>{said}</h1></body></html>", kind="text/html", more=ids),
        stream([event(b'{"broken": ' + said.encode())]),
        [pause(0.01), RESET],
        [CLOSE],
        reply("429 Too Many Requests", {"detail": [{"loc": [said], "msg": said}]}, more=ids),
        stream([delta(content="cut "), delta(content=said)]),
    ]  # fmt: skip


Echo = Callable[..., Port]


@pytest.fixture
def echo(wire: Wire) -> Echo:
    """Call it with the secrets of a run: a server that sends all of them back."""
    return lambda *secrets: wire.serve(*(echoes(KEY, SHAPED, HEADER, *secrets) * 100))


@pytest.mark.parametrize(
    ("transport", "processes"),
    [
        pytest.param("fast", "1", marks=pytest.mark.slow),
        pytest.param("sdk", "1", marks=pytest.mark.slow),
        ("fast", "2"),
        ("sdk", "2"),
    ],
)
def test_headless(search: Search, echo: Echo, surroundings: Surroundings, transport: str, processes: str) -> None:
    several = ["--processes", processes] if processes != "1" else []
    server = echo(PROXY_PASSWORD)
    with ForwardProxy() as proxy:
        surroundings.environment["HTTP_PROXY"] = through_proxy(proxy)
        done = surroundings.run(
            "--headless", "--host", server.url, "--llm-sweep", "2", "--llm-requests", "24", "--llm-warmup", "0",
            "--llm-transport", transport, "--llm-proxy-loopback", *several,
        )  # fmt: skip
        login = base64.b64encode(f"paula:{PROXY_PASSWORD}".encode()).decode()
        assert login in "\n".join(proxy.heads)
    heads = "\n".join(request.head for request in server.requests())
    assert f"Bearer {KEY}" in heads  # all of it was really in use
    assert HEADER in heads
    rows = (surroundings.folder / "out" / "run_llm_requests.csv").read_text()
    assert "[redacted]" in rows
    assert HOSTILE[1:20] in rows
    assert rows.count("\n") == 25
    assert b"DEBUG/" in done.stderr
    for logger in (b"openai", b"botocore", b"somebody.else", *((b"httpcore2",) if transport == "sdk" else ())):
        assert b"DEBUG/" + logger in done.stderr, logger
    assert b"the gateway refuses [redacted]" in done.stderr + done.stdout
    assert (surroundings.folder / "out" / "run_exceptions.csv").is_file()
    assert (surroundings.folder / "messages.bin").is_file() == (processes != "1")
    checked(search, f"headless, {transport}, processes {processes}", surroundings, done)


@pytest.mark.parametrize(
    ("where", "processes"),
    [pytest.param("option", "1", marks=pytest.mark.slow), ("option", "2"), ("variable", "1"), ("class", "2")],
)
def test_headless_with_secrets_in_the_url(
    search: Search, echo: Echo, surroundings: Surroundings, where: str, processes: str
) -> None:
    server = echo(PASSWORD, QUERY)
    url = server.url.replace("http://", f"http://anna:{quote(PASSWORD)}@") + f"?api-version=2024-10-21&api_key={QUERY}"
    variable = {"variable": "OPENAI_BASE_URL", "class": "CLASS_HOST"}.get(where)
    if variable:
        surroundings.environment[variable] = url
    given = ["--host", url] if where == "option" else []
    several = ["--processes", processes] if processes != "1" else []
    counted = ["--llm-sweep", "2", "--llm-requests", "24", "--llm-warmup", "0"]
    done = surroundings.run("--headless", *given, *counted, *several)
    requests = server.requests()
    assert any(QUERY in request.target for request in requests)
    assert any(
        base64.b64encode(f"anna:{PASSWORD}".encode()).decode() in request.headers.get("authorization", "")
        for request in requests
    )
    manifest = (surroundings.folder / "out" / "run_llm_run.json").read_text()
    assert "options" in json.loads(manifest)
    checked(search, f"headless, secrets in the URL by {where}, processes {processes}", surroundings, done)


@pytest.mark.parametrize(
    ("host", "code"),
    [("ftp://anna:{password}@a.test/v1", 2), ("https://anna:{password}@a.invalid/v1?api_key={query}", None)],
)  # fmt: skip
def test_a_run_that_is_refused(search: Search, surroundings: Surroundings, host: str, code: int | None) -> None:
    url = host.format(password=quote(PASSWORD), query=QUERY)
    surroundings.environment["HTTPS_PROXY"] = f"socks5://paula:{quote(PROXY_PASSWORD)}@localhost:1"
    done = surroundings.run("--headless", "--host", url, "--llm-requests", "2", "-t", "3s")
    assert done.returncode == code if code else done.returncode != 0
    checked(search, f"refused run ({url.partition(':')[0]})", surroundings, done)


@pytest.mark.parametrize("processes", [pytest.param("1", marks=pytest.mark.slow), "2"])
def test_web_interface(search: Search, echo: Echo, surroundings: Surroundings, processes: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    root = f"http://127.0.0.1:{number}"
    server = echo(PASSWORD, QUERY)
    url = server.url.replace("http://", f"http://anna:{quote(PASSWORD)}@") + f"?api_key={QUERY}"
    several = ["--processes", processes] if processes != "1" else []
    run = f"web interface, processes {processes}"
    arguments = surroundings.command("--web-host", "127.0.0.1", "--web-port", str(number), "--host", url, *several)
    output = surroundings.folder / "console.txt"
    with output.open("wb") as console:
        process = subprocess.Popen(
            arguments, cwd=surroundings.folder, env=surroundings.environment, stdin=subprocess.DEVNULL, stdout=console,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            wait_for(lambda: fetched(f"{root}/"))
            search.look(f"{run}: page / before the start", fetched(f"{root}/"))
            if processes != "1":
                wait_for(lambda: len(json.loads(fetched(f"{root}/stats/requests"))["workers"]) == 2)
            form = {"user_count": "2", "spawn_rate": "2", "host": url, "llm_requests": "24"}
            search.look(f"{run}: answer to /swarm", fetched(f"{root}/swarm", form))
            # Workers report every few seconds.
            wait_for(lambda: b"redacted" in fetched(f"{root}/stats/failures/csv"))
            wait_for(lambda: b"refuses [redacted]" in fetched(f"{root}/exceptions"))
            for page in PAGES:
                content = fetched(root + page)
                assert content, page
                search.look(f"{run}: page {page}", content)
            assert b"refuses [redacted]" in fetched(f"{root}/exceptions")
            assert b"redacted" in fetched(f"{root}/stats/failures/csv")
            assert b"DEBUG" in fetched(f"{root}/logs")
            search.look(f"{run}: answer to /stop", fetched(f"{root}/stop"))
            search.look(f"{run}: page / after the stop", fetched(f"{root}/"))
        finally:
            end(process)
    search.look_into(run, surroundings.folder)
    assert not search.verdict()


def test_the_search_was_a_search(search: Search, capsys: pytest.CaptureFixture[str]) -> None:
    """Something was looked at, something was taken out, and every spelling would have been found."""
    if len(search.places) < 50:
        pytest.skip("only a part of the searches ran")
    assert search.marks > 100
    for name, secret in SECRETS.items():
        for spelling in spellings(secret):
            other = Search()
            other.look("control", b"before " + spelling + b" after")
            assert other.found, name
    with capsys.disabled():
        print(f"\nsearched for {', '.join(SECRETS)} in {len(search.places)} places, {search.marks} redactions seen:")
        for place, size in search.places.items():
            print(f"  {place} ({size} bytes)")
