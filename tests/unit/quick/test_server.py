"""Which server ``llm-bench quick`` finds, and what it says when it finds none. All servers are real sockets."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llm_users.quick.server import LOCAL_PORTS, NoServer, Server, find_local, server_at, versioned_url
from llm_users.simulator.launch import launch
from tests.ports import free_port

MODELS = json.dumps({"object": "list", "data": [{"id": "a"}, {"id": "b"}]})


@contextlib.contextmanager
def serving(
    paths: Mapping[str, str], *, key: str = "", status: int = 404, location: str = ""
) -> Iterator[tuple[str, list[str]]]:
    """A server with these answers by path, and the paths and keys that it was asked with."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers.get('Authorization', '-')}")
            body = paths.get(self.path, "nothing here").encode()
            code = 200 if self.path in paths else status
            if key and self.headers.get("Authorization") != f"Bearer {key}":
                code = 401
            self.send_response(code)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_the_usual_ports_are_those_of_the_servers_documentation() -> None:
    assert LOCAL_PORTS == {
        8000: "vLLM", 30000: "SGLang", 8080: "llama.cpp", 11434: "Ollama", 1234: "LM Studio", 3000: "TGI"
    }  # fmt: skip


def test_the_first_port_that_lists_models_is_taken_and_no_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-server")
    with (
        serving({"/v1/models": "<html>"}) as (page, asked),
        serving({"/v1/models": '{"data": []}'}) as (empty, _),
        launch("ttft=1ms,itl=1ms") as simulator,
        serving({"/v1/models": MODELS}) as (later, _),
    ):
        ports = {free_port(): "none", port_of(page): "page", port_of(empty): "empty", simulator.port: "vLLM"}
        server = find_local({**ports, port_of(later): "later"})
    assert server == Server(simulator.url, ("simulated",), "vLLM")
    assert asked == ["/v1/models -"]


def test_without_a_server_the_message_names_the_ports_and_what_to_do() -> None:
    port = free_port()
    with pytest.raises(NoServer, match=rf"Tried ports {port} \(vLLM\)\. Start a server.*--llm-simulator"):
        find_local({port: "vLLM"})


def test_a_local_server_that_needs_a_key_is_named() -> None:
    with (
        serving({"/v1/models": MODELS}, key="secret-key") as (url, _),
        pytest.raises(NoServer, match=rf"{url}/v1 requires a key \(401\)\. Keys are sent only to a URL that you"),
    ):
        find_local({port_of(url): "vLLM"})


def test_ports_are_asked_at_the_same_time_and_a_silent_one_does_not_keep_the_command() -> None:
    with contextlib.ExitStack() as stack, launch("ttft=1ms,itl=1ms") as simulator:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        began_s = time.monotonic()
        server = find_local({**{each.getsockname()[1]: "silent" for each in silent}, simulator.port: "last"})
        assert time.monotonic() - began_s < 6  # one after the other: 8 s
    assert server.port_of == "last"


@pytest.mark.parametrize(
    ("paths", "given", "found"),
    [
        ({"/v1/models": MODELS}, "", "/v1"),
        ({"/v1/models": MODELS}, "/", "/v1"),
        ({"/v1/models": MODELS}, "/v1", "/v1"),
        ({"/v1/models": MODELS}, "/v1/", "/v1"),
        ({"/models": MODELS, "/v1/models": MODELS}, "", ""),
        ({"/models": "<!doctype html>", "/v1/models": MODELS}, "", "/v1"),
        ({"/api/v1/models": MODELS}, "/api", "/api/v1"),
    ],
)
def test_v1_is_added_when_only_that_path_lists_models(paths: dict[str, str], given: str, found: str) -> None:
    with serving(paths) as (url, _):
        assert server_at(url + given) == Server(url + found, ("a", "b"))
        assert server_at((url + given).removeprefix("http://")).url == url + found


def test_the_key_goes_to_a_given_url_and_not_to_a_redirect() -> None:
    with (
        serving({"/v1/models": MODELS}) as (other, asked_other),
        serving({}, status=307, location=f"{other}/v1/models") as (url, asked),
        pytest.raises(NoServer, match="returns 307"),
    ):
        server_at(f"{url}/v1", "secret-key")
    assert asked == ["/v1/models Bearer secret-key"]
    assert asked_other == []


@pytest.mark.parametrize(("key", "said"), [("", "requires a key"), ("wrong-key", "rejects the key")])
def test_a_missing_or_wrong_key_is_named_without_the_key(key: str, said: str) -> None:
    with serving({"/v1/models": MODELS}, key="secret-key") as (url, _):
        with pytest.raises(NoServer, match=rf"{url}/v1 {said} \(401\)\. Set the key in .*OPENAI_API_KEY") as refused:
            server_at(url, key)
        assert "wrong-key" not in str(refused.value)
        assert server_at(url, "secret-key").models == ("a", "b")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://127.0.0.1", "it must start with http:// or https://"),
        ("http://127.0.0.1:99999", "its port is not a number"),
        ("http://me:password@127.0.0.1:1", "the URL contains credentials or a query"),
        ("http://127.0.0.1:1/v1?key=password", "the URL contains credentials or a query"),
    ],
)
def test_urls_that_cannot_be_used_are_refused_without_their_secrets(url: str, said: str) -> None:
    with pytest.raises(NoServer) as refused:
        server_at(url)
    assert said in str(refused.value)
    assert "password" not in str(refused.value)


def test_a_server_that_cannot_be_reached_is_named_once() -> None:
    port = free_port()
    with pytest.raises(NoServer, match=rf"^GET http://127.0.0.1:{port}/models fails \(.*refused\)\. Check that the"):
        server_at(f"http://127.0.0.1:{port}")


def test_a_server_that_lists_no_models_needs_the_name_of_one() -> None:
    with serving({}) as (url, _):
        with pytest.raises(NoServer, match=r"/models returns 404; GET .*/v1/models returns 404\. Give the base URL"):
            server_at(url)
        assert server_at(f"{url}/v1", needs_models=False) == Server(f"{url}/v1", ())


def test_names_with_control_characters_do_not_reach_the_terminal() -> None:
    with serving({"/v1/models": json.dumps({"data": [{"id": "\x1b[31mred"}, {"id": 3}, {"id": "good"}]})}) as (url, _):
        assert server_at(url).models == ("good",)


def test_on_this_machine_the_first_model_that_is_not_for_embeddings_is_taken() -> None:
    listed = ("text-embedding-nomic", "llama-3", "gemma")
    assert Server("http://127.0.0.1:1234/v1", listed).model() == "llama-3"
    assert Server("http://127.0.0.1:1234/v1", ("text-embedding-nomic",)).model() == "text-embedding-nomic"
    with pytest.raises(NoServer, match=r"lists 3 models\. Choose one with --llm-model NAME: llama-3, gemma"):
        Server("https://api.example.com/v1", listed).model()
    assert Server("https://api.example.com/v1", ("only",)).model() == "only"
    with pytest.raises(NoServer, match=r"lists no model\. Load a model"):
        Server("http://127.0.0.1:11434/v1", ()).model()


@pytest.mark.parametrize(
    ("paths", "adds_version"),
    [(("/v1/models",), True), (("/models",), False), (("/models", "/v1/models"), False), ((), False)],
)
def test_v1_is_added_only_if_the_root_does_not_list_models(paths: tuple[str, ...], adds_version: bool) -> None:
    with serving(dict.fromkeys(paths, MODELS)) as (url, _asked):
        assert versioned_url(url) == (f"{url}/v1" if adds_version else None)
        assert versioned_url(f"{url}/") == (f"{url}/v1" if adds_version else None)


def test_no_version_is_added_without_an_answer() -> None:
    assert versioned_url(f"http://127.0.0.1:{free_port()}") is None
    with serving({"/v1/models": MODELS}, key="right") as (url, _asked):
        assert versioned_url(url, "wrong") is None
        assert versioned_url(url, "right") == f"{url}/v1"
