"""Region, endpoint and credentials: which are in force, what is said about them, how they are renewed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest
from botocore.session import Session

from llm_users import secrets
from llm_users.users.bedrock.credentials import HeldCredentials, keep_fresh, seconds_left
from tests.aws_environment import ACCESS_KEY, SECRET_KEY
from tests.stream_bytes import head
from tests.unit.users.bedrock.frames import answer, converse_events, refusal
from tests.unit.users.bedrock.test_converse import ask
from tests.unit.users.bedrock.vault import Vault, user_of
from tests.unit.users.rig import Rig, eventually
from tests.wire_server import Port, Wire, send

MakeRig = Callable[..., Rig]

PROFILES = """
[profile lab]
region = eu-west-3
aws_access_key_id = AKIAIOSFODNN7LABLABX
aws_secret_access_key = labSecretlabSecretlabSecretlabSecretlabS
[profile nowhere]
[profile role]
region = eu-west-3
source_profile = lab
role_arn = arn:aws:iam::123456789012:role/Measuring
role_session_name = load
"""

ASSUMED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/Measuring/load</Arn>
<AssumedRoleId>AROAIOSFODNN7ROLEROL:load</AssumedRoleId></AssumedRoleUser>
<Credentials><AccessKeyId>ASIAIOSFODNN7ROLEROL</AccessKeyId><SecretAccessKey>roleSecret</SecretAccessKey>
<SessionToken>roleToken</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>
</AssumeRoleResult></AssumeRoleResponse>"""


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text(PROFILES)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


@pytest.fixture
def keyless(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)


@pytest.fixture
def port(wire: Wire) -> Port:
    return wire.serve(answer(*converse_events("x")))


def scope(port: Port) -> str:
    """The region that the last request was signed for."""
    return port.requests()[-1].headers["authorization"].split("/")[2]


def notes(rig: Rig) -> str:
    return "\n".join(rig.notes)


# Regions.


@pytest.mark.parametrize(
    ("environment", "options", "region"),
    [
        ({}, {}, "us-east-1"),  # an endpoint of one's own, and nothing else
        ({"AWS_PROFILE": "lab"}, {}, "eu-west-3"),
        ({"AWS_PROFILE": "lab", "AWS_DEFAULT_REGION": "eu-west-1"}, {}, "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-1", "AWS_REGION": "eu-west-2"}, {}, "eu-west-2"),
        ({"AWS_REGION": "eu-west-2"}, {"llm_region": "ap-south-1"}, "ap-south-1"),
    ],
)
@pytest.mark.usefixtures("profiles")
def test_where_the_region_comes_from(
    make_rig: MakeRig,
    port: Port,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    options: dict[str, str],
    region: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    rig = make_rig(host=port.root, **options)
    assert rig.call(lambda user: user.converse("hi")).record.error_code is None
    assert scope(port) == region
    assert f"region {region}" in notes(rig)


def test_no_host_is_needed_but_a_region_is(make_rig: MakeRig) -> None:
    assert "--llm-region" in make_rig(host="").refused()
    assert "not a region" in make_rig(host="", llm_region="not a region").refused()
    rig = make_rig(host="", llm_region="eu-central-1")
    eventually(lambda: "https://bedrock-runtime.eu-central-1.amazonaws.com" in notes(rig))


def test_the_endpoint_from_the_environment(make_rig: MakeRig, port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", port.root)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    rig = make_rig(host="")
    assert rig.call(lambda user: user.converse("hi")).record.error_code is None


def test_a_run_without_a_model_is_refused(make_rig: MakeRig) -> None:
    assert "--llm-model" in make_rig(llm_model=None).refused()


def test_a_run_by_invoke_of_a_model_that_says_nothing_is_refused(make_rig: MakeRig) -> None:
    assert "--llm-invoke-format" in make_rig(llm_api="invoke", llm_model="my-model").refused()


def test_the_apis_of_others_are_refused(make_rig: MakeRig) -> None:
    assert "use converse or invoke" in make_rig(llm_api="chat").refused()
    assert "bedrock-mantle does not have" in make_rig(llm_bedrock_endpoint="mantle").refused()


# Which credentials.


def test_keys_from_the_environment(make_rig: MakeRig, port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "FwoGZXIvYXdzEXAMPLETOKENxxxxxxxx")
    rig = make_rig(host=port.root)
    assert rig.call(lambda user: user.converse("hi")).record.ok
    assert "access key from the environment, temporary (they are not renewed automatically)" in notes(rig)
    assert port.requests()[0].headers["x-amz-security-token"] == "FwoGZXIvYXdzEXAMPLETOKENxxxxxxxx"


@pytest.mark.usefixtures("profiles", "keyless")
def test_a_profile(make_rig: MakeRig, port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "lab")
    rig = make_rig(host=port.root)
    assert rig.call(lambda user: user.converse("hi")).record.ok
    assert "access key from the config file, profile lab" in notes(rig)


@pytest.mark.usefixtures("profiles", "keyless")
def test_an_assumed_role(make_rig: MakeRig, port: Port, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    sts = wire.serve([send(head("content-length", len(ASSUMED), kind="text/xml") + ASSUMED.encode())])
    monkeypatch.setenv("AWS_PROFILE", "role")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.root)
    rig = make_rig(host=port.root)
    assert rig.call(lambda user: user.converse("hi")).record.ok
    asked = sts.requests()[0]
    assert b"role%2FMeasuring" in asked.body
    assert "AKIAIOSFODNN7LABLABX" in asked.headers["authorization"]
    signed = port.requests()[0].headers
    assert "ASIAIOSFODNN7ROLEROL" in signed["authorization"]
    assert signed["x-amz-security-token"] == "roleToken"
    assert "assumed role, profile role" in notes(rig)
    assert "roleToken" not in notes(rig)


def test_a_bearer_key_goes_first_and_only_over_https(
    make_rig: MakeRig, port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-YmVkcm9jaw==")
    rig = make_rig(host="", llm_region="us-east-1")
    eventually(lambda: "bearer key from AWS_BEARER_TOKEN_BEDROCK" in notes(rig))
    assert "YmVkcm9jaw" not in notes(rig)
    assert "https" in make_rig(host=port.root).refused()


@pytest.mark.usefixtures("keyless")
def test_without_credentials(make_rig: MakeRig, port: Port) -> None:
    rig = make_rig(host=port.root)
    assert rig.call(lambda user: user.converse("hi")).record.error_code is None
    assert "authorization" not in port.requests()[0].headers
    assert "not signed" in notes(rig)
    assert "AWS_PROFILE" in make_rig(host="", llm_region="us-east-1").refused()


def test_the_simulator_gets_a_made_up_key(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-YmVkcm9jaw==")
    rig = make_rig(llm_simulator="ttft=5ms,itl=1ms")
    record = rig.call(lambda user: user.converse("hi", maxTokens=3)).record
    assert (record.error_code, record.output_tokens) == (None, 3)
    assert "placeholder key" in notes(rig)


def test_plain_headers_are_signed(make_rig: MakeRig, port: Port) -> None:
    rig = make_rig(host=port.root, llm_header=["x-session=a"])
    assert rig.call(lambda user: user.converse("hi")).record.ok
    headers = port.requests()[0].headers
    assert headers["x-session"] == "a"
    assert "x-session" in headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0]


def test_headers_from_the_environment(make_rig: MakeRig, port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE", "gate-secret-1")
    rig = make_rig(host=port.root, llm_header_env=["x-gate=GATE"])
    assert rig.call(lambda user: user.converse("hi")).record.ok
    assert port.requests()[0].headers["x-gate"] == "gate-secret-1"


def test_credentials_are_never_shown(
    make_rig: MakeRig, wire: Wire, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "FwoGZXIvYXdzEXAMPLETOKENyyyyyyyy"
    monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    echo = f"no such key {ACCESS_KEY} {SECRET_KEY} {token}"
    port = wire.serve(refusal("403 Forbidden", "UnrecognizedClientException", echo), answer(*converse_events("x")))
    with caplog.at_level(logging.DEBUG):
        rig = make_rig(host=port.root)
        record = rig.call(lambda user: user.converse("hi")).record
        assert rig.call(lambda user: user.converse("hi")).record.ok
    shown = [*rig.notes, record.error_message or "", str(rig.seen.locust_requests), caplog.text]
    for secret in (ACCESS_KEY, SECRET_KEY, token):
        assert all(secret not in text for text in shown)
    assert "[redacted]" in (record.error_message or "")


# Renewal.


def key_of(port: Port) -> str:
    return port.requests()[-1].headers["authorization"].split("Credential=")[1].split("/")[0]


def test_credentials_that_end_in_the_middle_of_a_run(make_rig: MakeRig, wire: Wire) -> None:
    """Renewal is slow, and no request waits for it."""
    port = wire.serve(answer(*converse_events("x")))
    vault = Vault(life_s=1.2)
    rig = make_rig(host=port.root, user_class=user_of(vault))
    records, keys = [rig.call(lambda user: user.converse("hi")).record], {key_of(port)}
    vault.slow_s = 0.2
    end = time.monotonic() + 2.2
    while time.monotonic() < end:
        records.append(rig.call(lambda user: user.converse("hi")).record)
        keys.add(key_of(port))
        gevent.sleep(0.02)
    assert all(record.error_code is None for record in records)
    assert len(keys) >= 3
    assert max(record.queue_s for record in records) < 0.15
    assert max(record.ttft_s for record in records) < 0.15
    assert "assumed role, valid for 0 min, renewed in the background" in notes(rig)


def test_credentials_that_expire_at_the_service_in_the_middle_of_a_run(
    make_rig: MakeRig, simulate: Callable[[str], str]
) -> None:
    """Keys that renew themselves: nobody notices. The endpoint refuses each key after a second."""
    url = simulate("ttft=20ms,itl=1ms,expire_credentials=1s")
    vault = Vault(life_s=1.0, slow_s=0.15)
    rig = make_rig(host=url, user_class=user_of(vault), users=4)
    end = time.monotonic() + 3.0
    records = []
    while time.monotonic() < end:
        sent = [rig.send(lambda user: user.converse("hi", maxTokens=4)) for _ in range(4)]
        records += [result.get(timeout=10).record for result in sent]
    assert {record.error_code for record in records} == {None}
    assert vault.given >= 4
    assert len(records) > 100
    assert max(record.ttft_s for record in records) < 0.02 + 0.1  # a renewal takes longer
    assert max(record.queue_s for record in records) < 0.1


def test_keys_that_do_not_renew_themselves_expire(make_rig: MakeRig, simulate: Callable[[str], str]) -> None:
    rig = make_rig(host=simulate("ttft=5ms,itl=1ms,expire_credentials=400ms"))
    records = [rig.call(lambda user: user.converse("hi", maxTokens=4)).record]
    begun = time.monotonic()
    while time.monotonic() < begun + 0.8:
        records.append(rig.call(lambda user: user.converse("hi", maxTokens=4)).record)
    codes = [record.error_code for record in records]
    assert codes == sorted(codes, key=bool)  # good ones, and from one moment on none
    assert {*codes} == {None, "ExpiredTokenException"}
    expired = records[-1]
    assert (expired.http_status, expired.chunks, expired.ttft_s) == (403, 0, None)
    assert "security token included in the request is expired" in (expired.error_message or "")
    assert "renew them at their source" in (expired.error_message or "")
    assert expired.response_id


def test_a_renewal_that_fails_is_said_once_and_without_the_secret(make_rig: MakeRig, wire: Wire) -> None:
    vault = Vault(life_s=0.4)
    rig = make_rig(host=wire.serve(answer(*converse_events("x"))).root, user_class=user_of(vault))
    assert rig.call(lambda user: user.converse("hi")).record.ok
    vault.broken = True
    eventually(lambda: "could not be renewed" in notes(rig))
    gevent.sleep(0.5)
    assert notes(rig).count("could not be renewed") == 1
    assert SECRET_KEY not in notes(rig)
    # What is left is tried on; the service says what it thinks of it.
    assert rig.call(lambda user: user.converse("hi")).record.ok


def test_a_life_shorter_than_the_run_is_said(make_rig: MakeRig, wire: Wire) -> None:
    vault = Vault(life_s=120)
    rig = make_rig(host=wire.serve(answer()).root, user_class=user_of(vault), run_time=600)
    eventually(lambda: "less than the run's 10 min" in notes(rig))
    assert vault.given <= 2  # botocore renews what has less than 15 minutes when it is first asked for it


def test_renewal_ends_with_the_run(make_rig: MakeRig, wire: Wire) -> None:
    vault = Vault(life_s=0.2)
    rig = make_rig(host=wire.serve(answer()).root, user_class=user_of(vault))
    eventually(lambda: vault.given > 2)
    rig.runner.stop()
    given = vault.given
    gevent.sleep(0.4)
    assert vault.given <= given + 1


def test_how_long_credentials_last() -> None:
    assert seconds_left(Session().get_credentials()) is None
    assert seconds_left(Vault(life_s=100).source()) == pytest.approx(100, abs=1)
    held = HeldCredentials(Vault(life_s=3600).source())
    assert held.due_s() == pytest.approx(3600 - 895, abs=2)
    held = HeldCredentials(Vault(life_s=600).source())
    assert held.due_s() == pytest.approx(300, abs=2)
    assert keep_fresh(HeldCredentials(Session().get_credentials()), print)() is None
    assert secrets.redact(f"{ACCESS_KEY}") != ACCESS_KEY


def test_an_expired_token_is_said_with_what_to_do(rig: Rig, wire: Wire) -> None:
    record = ask(rig, wire.serve(refusal("403 Forbidden", "ExpiredTokenException", "it is expired")).root).record
    assert record.error_code == "ExpiredTokenException"
    assert "renew" in (record.error_message or "")
