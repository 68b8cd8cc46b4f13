"""Keys of AWS go in, by environment and as bearer key; nothing that comes out may hold one of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from tests.project import ROOT
from tests.stream_bytes import chat_events, reply, stream
from tests.stream_bytes import delta as delta_of_chat
from tests.stream_bytes import event as event_of_stream
from tests.system.secrets.searching import (
    AWS_ID,
    AWS_SECRET,
    AWS_TOKEN,
    BEARER,
    HEADER,
    HOSTILE,
    PAGES,
    Search,
    Surroundings,
    checked,
    end,
    fetched,
    wait_for,
)
from tests.unit.users.anthropic.messages_api import PLAIN
from tests.unit.users.bedrock.frames import (
    START,
    STOP,
    answer,
    converse_events,
    delta,
    event,
    exception,
    metadata,
    metrics,
    part,
    refusal,
)
from tests.wire_server import CLOSE, RESET, Port, Script, Wire, pause

SIGNING = (AWS_ID, AWS_SECRET, AWS_TOKEN)
MODEL = "anthropic.claude-3-haiku-20240307-v1:0"


def echoes(*secrets: str) -> list[Script]:
    """Answers of both operations, good and bad, that repeat what they were sent."""
    said = " ".join((*secrets, HEADER))
    ids = f"x-amzn-RequestId: {said}\r\n"
    tool = event("contentBlockStart", {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": said, "name": said}}})
    used = {"serviceTier": {"type": said}, "performanceConfig": {"latency": HOSTILE}}
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": said}}
    end = {"type": "message_delta", "delta": {"stop_reason": said}, "usage": {"output_tokens": 1}}
    return [
        answer(*converse_events("fine ", said)),
        answer(
            START, delta(text=said), tool, event("messageStop", {"stopReason": said}), metadata(1, **used), more=ids
        ),
        refusal("403 Forbidden", "UnrecognizedClientException", f"the key {said} is not known"),
        refusal("403 Forbidden", secrets[0], f"the signature was made with {said}"),
        refusal("429 Too Many Requests", "ThrottlingException", f"Too many tokens for {said}"),
        refusal("424 Failed", "ModelErrorException", said, originalStatusCode=500, resourceName=said),
        answer(START, delta(text="x"), exception("throttlingException", message=said)),
        answer(
            START, delta(text="x"), exception(secrets[-1], message=said, originalStatusCode=5, originalMessage=said)
        ),
        answer(START, exception("modelStreamErrorException", message=HOSTILE)),
        refusal("400 Bad Request", HOSTILE, HOSTILE),
        answer(part(text), part(end), part({"type": "message_stop", **metrics(1)})),
        answer(part({"surprise": said, said: 1})),
        answer(START, delta(reasoningContent={"text": said}), STOP, metadata(1)),
        answer(event("contentBlockDelta", f'{{"broken": {said}'.encode())),
        reply("500 Internal Server Error", f"<html><body><h1>{said}</h1></body></html>", kind="text/html", more=ids),
        [pause(0.01), RESET],
        [CLOSE],
        answer(START, delta(text="cut "), delta(text=said)),
    ]


def echoes_of_the_vendors(*secrets: str) -> list[Script]:
    """Answers of OpenAI's and Anthropic's shape, good and bad, that repeat what they were sent."""
    said = " ".join((*secrets, HEADER))
    more = f"x-amzn-RequestId: {said}\r\nx-amzn-ErrorType: {secrets[0]}\r\n"
    openai = {"error": {"message": said, "type": said, "code": said}}
    return [
        stream(chat_events("fine ", said)),
        stream(PLAIN),
        stream([delta_of_chat(content=said), event_of_stream({"error": {"message": said, "code": secrets[0]}})]),
        reply("403 Forbidden", {"message": f"the key {said} is not known"}, more=more),
        reply("429 Too Many Requests", openai, more=more),
        reply("400 Bad Request", {"type": "error", "error": {"type": HOSTILE, "message": HOSTILE + said}}),
        reply("401 Unauthorized", openai),
        reply("500 Internal Server Error", f"<html><body><h1>{said}</h1></body></html>", kind="text/html", more=more),
        [CLOSE],
    ]


@pytest.fixture
def bedrock(surroundings: Surroundings) -> Surroundings:
    """Where runs of Bedrock's user happen."""
    surroundings.locustfile = Path(__file__).with_name("leaky_bedrock_locustfile.py")
    root = str(ROOT)
    surroundings.environment |= {
        "PYTHONPATH": root,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return surroundings


def counted(*more: str) -> tuple[str, ...]:
    return ("--headless", "--llm-model", MODEL, "--llm-sweep", "2", "--llm-requests", "40", "--llm-warmup", "0", *more)


def looked_at(search: Search, run: str, where: Surroundings, done: subprocess.CompletedProcess[bytes]) -> None:
    """Everything that a finished run put out, and that it was a run."""
    rows = (where.folder / "out" / "run_llm_requests.csv").read_text()
    assert rows.count("\n") == 41, done.stderr
    assert "[redacted]" in rows
    assert HOSTILE[1:20] in rows
    for logger in (b"botocore", b"somebody.else"):
        assert b"DEBUG/" + logger in done.stderr, logger
    assert b"AWS refuses ['[redacted]'" in done.stderr + done.stdout
    manifest = json.loads((where.folder / "out" / "run_llm_run.json").read_text())
    assert any(note.startswith("Bedrock: ") for note in manifest["notes"])
    checked(search, run, where, done)


@pytest.mark.parametrize(
    ("transport", "processes"),
    [
        pytest.param("fast", "1", marks=pytest.mark.slow),
        ("fast", "2"),
        pytest.param("sdk", "2", marks=pytest.mark.slow),
    ],
)
def test_signed_requests(search: Search, wire: Wire, bedrock: Surroundings, transport: str, processes: str) -> None:
    server = wire.serve(*(echoes(*SIGNING) * 100))
    several = ["--processes", processes] if processes != "1" else []
    done = bedrock.run(*counted("--host", server.root, "--llm-transport", transport, *several))
    heads = "\n".join(request.head for request in server.requests())
    assert f"Credential={AWS_ID}/" in heads  # all of it was really in use
    assert AWS_TOKEN in heads
    assert HEADER in heads
    assert "/invoke-with-response-stream" in heads
    looked_at(search, f"Bedrock, signed, {transport}, processes {processes}", bedrock, done)


@pytest.mark.parametrize("transport", ["fast", pytest.param("sdk", marks=pytest.mark.slow)])
def test_signed_requests_of_the_vendors_apis(search: Search, wire: Wire, bedrock: Surroundings, transport: str) -> None:
    bedrock.locustfile = Path(__file__).with_name("leaky_bedrock_api_locustfile.py")
    server = wire.serve(*(echoes_of_the_vendors(*SIGNING) * 100))
    done = bedrock.run(*counted("--host", server.root, "--llm-transport", transport))
    heads = "\n".join(request.head for request in server.requests())
    assert f"Credential={AWS_ID}/" in heads
    assert AWS_TOKEN in heads
    for path in ("/openai/v1/chat/completions", "/openai/v1/responses", "/anthropic/v1/messages"):
        assert path in heads
    looked_at(search, f"Bedrock, APIs of the vendors, {transport}", bedrock, done)


@pytest.fixture
def encrypted(wire: Wire, bedrock: Surroundings, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Port]:
    """Call it with scripts: a server that speaks TLS, whose authority the runs trust."""
    folder = tmp_path_factory.mktemp("authority")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "root.pem"))
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "it.pem"))
    bedrock.environment["SSL_CERT_FILE"] = str(folder / "root.pem")
    return lambda *scripts: wire.serve(*scripts, tls=folder / "it.pem")


@pytest.mark.parametrize("transport", [pytest.param("fast", marks=pytest.mark.slow), "sdk"])
def test_a_bearer_key(search: Search, encrypted: Callable[..., Port], bedrock: Surroundings, transport: str) -> None:
    server = encrypted(*(echoes(*SIGNING, BEARER) * 100))
    bedrock.environment["AWS_BEARER_TOKEN_BEDROCK"] = BEARER
    done = bedrock.run(*counted("--host", server.root, "--llm-transport", transport))
    heads = "\n".join(request.head for request in server.requests())
    assert f"Bearer {BEARER}" in heads
    looked_at(search, f"Bedrock, bearer key, {transport}", bedrock, done)


def test_a_bearer_key_of_the_vendors_apis(
    search: Search, encrypted: Callable[..., Port], bedrock: Surroundings
) -> None:
    bedrock.locustfile = Path(__file__).with_name("leaky_bedrock_api_locustfile.py")
    server = encrypted(*(echoes_of_the_vendors(*SIGNING, BEARER) * 100))
    bedrock.environment["AWS_BEARER_TOKEN_BEDROCK"] = BEARER
    done = bedrock.run(*counted("--host", server.root))
    assert f"Bearer {BEARER}" in "\n".join(request.head for request in server.requests())
    looked_at(search, "Bedrock, APIs of the vendors, bearer key", bedrock, done)


def test_runs_that_are_refused(search: Search, bedrock: Surroundings) -> None:
    bedrock.environment["AWS_BEARER_TOKEN_BEDROCK"] = BEARER
    done = bedrock.run(*counted("--host", "http://127.0.0.1:9"))
    assert done.returncode == 2
    assert b"only over https" in done.stderr
    checked(search, "Bedrock, bearer key over http", bedrock, done)
    del bedrock.environment["AWS_BEARER_TOKEN_BEDROCK"]
    bedrock.environment["AWS_PROFILE"] = f"of-{AWS_SECRET}"
    done = bedrock.run(*counted("--llm-region", "us-east-1"))
    assert done.returncode == 2
    checked(search, "Bedrock, no such profile", bedrock, done)


def test_web_interface(search: Search, wire: Wire, bedrock: Surroundings) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    root = f"http://127.0.0.1:{number}"
    server = wire.serve(*(echoes(*SIGNING) * 100))
    run = "Bedrock, web interface"
    arguments = bedrock.command(
        "--web-host", "127.0.0.1", "--web-port", str(number), "--host", server.root, "--llm-model", MODEL
    )
    with (bedrock.folder / "console.txt").open("wb") as console:
        process = subprocess.Popen(
            arguments, cwd=bedrock.folder, env=bedrock.environment, stdin=subprocess.DEVNULL, stdout=console,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            wait_for(lambda: fetched(f"{root}/"))
            form = {"user_count": "2", "spawn_rate": "2", "host": server.root, "llm_requests": "40"}
            search.look(f"{run}: answer to /swarm", fetched(f"{root}/swarm", form))
            wait_for(lambda: b"AWS refuses" in fetched(f"{root}/exceptions"))
            for page in PAGES:
                search.look(f"{run}: page {page}", fetched(root + page))
            assert b"AWS refuses ['[redacted]" in fetched(f"{root}/exceptions").replace(b"&#39;", b"'")
            search.look(f"{run}: answer to /stop", fetched(f"{root}/stop"))
        finally:
            end(process)
    search.look_into(run, bedrock.folder)
    found = search.verdict()
    assert not found, found
