"""Finds an OpenAI-compatible server: at the usual ports of this machine, or at the URL that the user gives.

A server counts as OpenAI-compatible if ``GET BASE_URL/models`` returns its list of models.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from llm_users.secrets import redact_start
from llm_users.transport.endpoint import check_url

LOCAL_PORTS: Mapping[int, str] = {
    8000: "vLLM",
    30000: "SGLang",
    8080: "llama.cpp",
    11434: "Ollama",
    1234: "LM Studio",
    3000: "TGI",
}
"""The default ports of local servers. A server at an earlier port goes before one at a later port."""

_LOCAL_TIMEOUT_S = 2.0
_TIMEOUT_S = 10.0
_MOST_BYTES = 10_000_000
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_KEY_STATUSES = (401, 403)


class NoServer(ValueError):
    """No server can be used. The message says what was tried and what to do."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server: its base URL and the models that it lists. ``models`` is empty if it does not list them."""

    url: str
    models: tuple[str, ...]
    port_of: str = ""
    """The program that usually listens on this port, if the port was found by a search."""

    @property
    def is_local(self) -> bool:
        """Return whether the server runs on this machine."""
        return urlsplit(self.url).hostname in _LOOPBACK

    def model(self) -> str:
        """Return the model to request. On this machine, it is the first one that is not for embeddings.

        Raises ``NoServer`` if the user must choose it.
        """
        chat = [model for model in self.models if "embed" not in model.lower()] or list(self.models)
        if chat and (self.is_local or len(self.models) == 1):
            return chat[0]
        if not self.models:
            raise NoServer(f"{self.url} lists no model. Load a model, or name one with --llm-model NAME.")
        more = ", ..." if len(chat) > 5 else ""
        raise NoServer(
            f"{self.url} lists {len(self.models)} models. Choose one with --llm-model NAME: {', '.join(chat[:5])}{more}"
        )


def find_local(ports: Mapping[int, str] = LOCAL_PORTS) -> Server:
    """Ask all ports of this machine at the same time, without a key, and return the first server that lists models.

    Raises ``NoServer``.
    """
    answers: dict[int, Server | NoServer] = {}

    def ask(port: int, program: str) -> None:
        url = f"http://127.0.0.1:{port}/v1"
        try:
            answers[port] = Server(url, _models(url, "", _LOCAL_TIMEOUT_S), program)
        except NoServer as error:
            answers[port] = error

    # Daemon threads: a port that answers byte by byte does not keep the command from ending.
    threads = [threading.Thread(target=ask, args=each, daemon=True) for each in ports.items()]
    for thread in threads:
        thread.start()
    end_s = time.monotonic() + 2 * _LOCAL_TIMEOUT_S
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))
    found = [answers[port] for port in ports if port in answers]
    for server in found:
        if isinstance(server, Server) and server.models:
            return server
    keyed = [str(error) for error in found if isinstance(error, _KeyNeeded)]
    if keyed:
        raise NoServer(f"{keyed[0]} Keys are sent only to a URL that you give: llm-bench quick URL")
    tried = ", ".join(f"{port} ({program})" for port, program in ports.items())
    raise NoServer(
        f"no OpenAI-compatible server answers on this machine. Tried ports {tried}. Start a server, give the URL of "
        "one (llm-bench quick http://HOST:PORT), or try the command without a server: llm-bench quick --llm-simulator"
    )


def server_at(given: str, key: str = "", *, needs_models: bool = True) -> Server:
    """Return the server at a base URL, or at its ``/v1`` if only that path lists models.

    Without ``needs_models``, a server that does not list its models is accepted. Raises ``NoServer``.
    """
    url = given.strip().rstrip("/")
    if "://" not in url:
        url = f"http://{url}"
    problem = check_url(url)
    if problem is None and (urlsplit(url).query or "@" in urlsplit(url).netloc):
        raise NoServer("the URL contains credentials or a query. Leave them out, and set the key in OPENAI_API_KEY.")
    if problem is not None:
        raise NoServer(f"{redact_start(given, 200)}: {problem}. Write for example http://HOST:8000")
    candidates = [url] if url.endswith("/v1") else [url, f"{url}/v1"]
    errors: list[NoServer] = []
    for candidate in candidates:
        try:
            return Server(candidate, _models(candidate, key, _TIMEOUT_S))
        except _Unreachable as error:
            raise NoServer(
                f"{error} Check that the server runs and that the URL is right, also http or https and the port."
            ) from None
        except NoServer as error:
            errors.append(error)
    keyed = [error for error in errors if isinstance(error, _KeyNeeded)]
    if keyed:
        # A gateway can ask for a key at every path, so the path with the version comes first.
        raise NoServer(f"{keyed[-1]} Set the key in the environment variable OPENAI_API_KEY.")
    if not needs_models:
        return Server(url, ())
    said = "; ".join(dict.fromkeys(str(error).rstrip(".") for error in errors))
    raise NoServer(
        f"no OpenAI-compatible server: {said}. Give the base URL of the API, for example http://HOST:8000/v1. If the "
        "server does not list its models, name one with --llm-model NAME."
    )


def versioned_url(url: str, key: str = "") -> str | None:
    """Return the base URL with ``/v1`` if only that path lists models; None if not, or without an answer."""
    try:
        found = server_at(url, key, needs_models=False).url
    except NoServer:
        return None
    return found if found != url.rstrip("/") else None


class _KeyNeeded(NoServer):
    """The server rejects the request without a valid key."""


class _Unreachable(NoServer):
    """The server cannot be reached."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Report redirects as errors, because a redirected request sends the key to another server."""

    def redirect_request(self, *_arguments: object) -> None:
        return None


def _models(url: str, key: str, timeout_s: float) -> tuple[str, ...]:
    """Return the models that a server lists. Raises ``NoServer``."""
    asked = f"{url}/models"
    request = urllib.request.Request(asked, headers={"Authorization": f"Bearer {key}"} if key else {})  # noqa: S310
    # Requests to this machine do not use a proxy, as in a run.
    proxies = [urllib.request.ProxyHandler({})] if urlsplit(url).hostname in _LOOPBACK else []
    opener = urllib.request.build_opener(_NoRedirect, *proxies)
    try:
        with opener.open(request, timeout=timeout_s) as response:
            body = response.read(_MOST_BYTES)
    except HTTPError as error:
        if error.code in _KEY_STATUSES:
            raise _KeyNeeded(f"{url} {'rejects the key' if key else 'requires a key'} ({error.code}).") from None
        raise NoServer(f"GET {asked} returns {error.code}.") from None
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise _Unreachable(f"GET {asked} fails ({redact_start(str(reason) or type(reason).__name__, 200)}).") from None
    try:
        names = [entry["id"] for entry in json.loads(body)["data"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NoServer(f"GET {asked} does not return a list of models.") from None
    return tuple(name for name in names if isinstance(name, str) and name.isprintable() and name)
