"""Azure OpenAI: deployments, API versions, keys and tokens; organisation and project headers of OpenAI itself."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from llm_users import AzureOpenAIUser, OpenAIUser, secrets
from llm_users.transport import endpoint
from llm_users.transport.proxies import Proxies
from llm_users.users.openai.client import azure_base_url, deployment_of, has_deployments, is_azure
from tests.forward_proxy import ForwardProxy
from tests.stream_bytes import DONE, chat_events, delta, event, stream, usage
from tests.unit.users.rig import Rig
from tests.wire_server import Port, Wire

MakeRig = Callable[..., Rig]
ANSWER = stream(chat_events("ok"))
VARIABLES = ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "OPENAI_API_VERSION", "OPENAI_API_KEY")


@pytest.fixture
def port(wire: Wire) -> Port:
    return wire.serve(ANSWER)


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def asked(rig: Rig, user_class: Any, host: str, model: str = "my-gpt") -> Any:
    """One chat by the client that this class makes."""

    def job(user: Any) -> Any:
        user.host = endpoint.clean_url(host)
        user.client_for = lambda run_context, _host, model: user_class.client_for(run_context, host, model)
        kept, type(user).model = type(user).model, model
        try:
            return user.chat("hi").record
        finally:
            type(user).model = kept
            del user.client_for

    return rig.call(job)


def made(**attributes: Any) -> Any:
    return type("Deployed", (AzureOpenAIUser,), {"abstract": True, **attributes})


def test_a_key_goes_to_the_deployment(rig: Rig, port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-of-the-environment")
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    record = asked(rig, made(), port.root)
    assert record.error_code is None
    (request,) = port.requests()
    assert request.target == "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"
    assert request.headers["api-key"] == "azure-key-of-the-environment"
    assert "authorization" not in request.headers
    assert record.ttft_s is not None
    assert record.stamp_source == "kernel"


@pytest.mark.parametrize(
    "path", ["/openai/deployments/theirs?api-version=2025-01-01", "/openai?api-version=2025-01-01"]
)
def test_the_url_may_name_version_and_deployment(
    rig: Rig, port: Port, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-of-the-environment")
    asked(rig, made(), port.root + path)
    deployment = "theirs" if "theirs" in path else "my-gpt"
    target = f"/openai/deployments/{deployment}/chat/completions?api-version=2025-01-01"
    assert port.requests()[0].target == target


def test_a_token_provider_is_asked_for_each_request(rig: Rig, wire: Wire) -> None:
    port = wire.serve(ANSWER, ANSWER)
    tokens = iter(["first-token-of-entra", "second-token-of-entra"])
    user_class = made(api_version="2024-10-21", azure_ad_token_provider=lambda: next(tokens))
    for _ in range(2):
        asked(rig, user_class, port.root)
    authorizations = [request.headers["authorization"] for request in port.requests()]
    assert authorizations == ["Bearer first-token-of-entra", "Bearer second-token-of-entra"]
    assert "entra" not in secrets.redact(f"it was {authorizations}")


def test_a_token_of_the_environment_wins_over_a_key(rig: Rig, port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-of-the-environment")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "token-of-the-environment")
    asked(rig, made(api_version="2024-10-21"), port.root)
    assert port.requests()[0].headers["authorization"] == "Bearer token-of-the-environment"


def test_azure_identity_is_used_when_it_is_installed(rig: Rig, port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = types.ModuleType("azure.identity")
    identity.DefaultAzureCredential = lambda: "chain"  # type: ignore[attr-defined]
    identity.get_bearer_token_provider = lambda chain, scope: lambda: f"{chain}-{scope[8:25]}"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "azure", types.ModuleType("azure"))
    monkeypatch.setitem(sys.modules, "azure.identity", identity)
    asked(rig, made(api_version="2024-10-21"), port.root)
    assert port.requests()[0].headers["authorization"] == "Bearer chain-cognitiveservices"


@pytest.mark.parametrize(
    ("attributes", "words"),
    [({}, "OPENAI_API_VERSION"), ({"api_version": "2024-10-21"}, "AZURE_OPENAI_API_KEY.*azure-identity")],
)
def test_what_is_missing_is_named(
    rig: Rig, port: Port, monkeypatch: pytest.MonkeyPatch, attributes: dict[str, str], words: str
) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(ValueError, match=words):
        rig.call(lambda user: made(**attributes).client_for(user.run_context, port.root, "m"))


def test_hosts_are_told_apart() -> None:
    classic, v1 = "https://mine.openai.azure.com", "https://mine.openai.azure.com/openai/v1"
    assert is_azure(classic)
    assert is_azure(v1)
    assert (has_deployments(classic), has_deployments(v1), has_deployments("https://api.openai.com/v1")) == (
        True,
        False,
        False,
    )
    assert azure_base_url(classic) == f"{classic}/openai"
    assert deployment_of(f"{classic}/openai/deployments/x") == "x"
    assert deployment_of(classic) is None
    assert AzureOpenAIUser.listed_models(None, f"{classic}/openai/deployments/x") == ["x"]  # type: ignore[arg-type]
    assert OpenAIUser.listed_models(None, classic) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "target"),
    [
        (
            "http://mine.openai.azure.com:{port}?api-version=v",
            "/openai/deployments/my-gpt/chat/completions?api-version=v",
        ),
        ("http://mine.openai.azure.com:{port}/openai/v1", "/openai/v1/chat/completions"),
    ],
)
def test_a_host_of_azure_s_own_name_needs_no_class(
    make_rig: MakeRig, port: Port, monkeypatch: pytest.MonkeyPatch, url: str, target: str
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-key-of-the-environment")
    with ForwardProxy() as proxy:  # only it knows where that host is
        rig = make_rig()
        proxies = Proxies({"HTTP_PROXY": f"http://localhost:{proxy.port}"})
        rig.call(lambda user: setattr(user.run_context.pool, "proxies", proxies))
        record = asked(rig, OpenAIUser, url.format(port=port.port))
    assert record.error_code is None
    request = port.requests()[0]
    assert request.target == target
    key = request.headers.get("api-key") or request.headers["authorization"].removeprefix("Bearer ")
    assert key == "azure-key-of-the-environment"


def test_azure_s_own_events_are_no_chunks(rig: Rig, wire: Wire) -> None:
    filters = {"hate": {"filtered": False, "severity": "safe"}}
    first = event(
        {"id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": filters}]}
    )
    judged = event({"id": "", "choices": [{"index": 0, "finish_reason": None, "content_filter_results": filters,
                                           "content_filter_offsets": {"check_offset": 1}}]})  # fmt: skip
    port = wire.serve(stream([first, delta(content="a"), judged, delta("content_filter"), usage(3), DONE]))
    answer = rig.ask(port.url)
    record = answer.record
    assert (answer.text, record.chunks, record.finish_reason, record.error_code) == ("a", 1, "content_filter", None)


@pytest.mark.parametrize("transport", ["fast", "sdk"])
def test_organisation_and_project_are_sent(
    make_rig: MakeRig, port: Port, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-ours")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-of-ours")
    make_rig(llm_transport=transport).ask(port.url)
    headers = port.requests()[0].headers
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-of-ours", "proj-of-ours")


@pytest.mark.parametrize("transport", ["fast", "sdk"])
def test_both_transports_take_the_same_proxy(
    make_rig: MakeRig, port: Port, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    with ForwardProxy(login="anna:word") as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://anna:word@localhost:{proxy.port}")
        rig = make_rig(llm_transport=transport)
        assert rig.ask(f"http://somewhere.test:{port.port}/v1").text == "ok"
        assert rig.ask(port.url).text == "ok"  # this machine is not proxied
        assert len(proxy.heads) == 1
        asked = make_rig(llm_transport=transport, llm_proxy_loopback=True)
        assert asked.ask(port.url).text == "ok"
        assert len(proxy.heads) == 2
