"""Taking secrets out of texts, logs and exceptions."""

from __future__ import annotations

import io
import json
import logging
import time
import types
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_users import secrets
from llm_users.transport import endpoint


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(secrets, "_known", set())
    monkeypatch.setattr(secrets, "_temporary", {})
    monkeypatch.setattr(secrets, "_longest_first", None)
    factory = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(factory)


@pytest.mark.parametrize(
    "text",
    ["sk-proj-abcdEFGH0123456789", "gsk_abcdefghij0123456789", "hf_abcdefghijklmnop", "AKIAABCDEFGHIJKLMNOP",
     "Authorization: Bearer abc.def-123456", "Basic YW5uYTpwYXNzd29yZA==", "http://anna:geheim@host/v1",
     "https://h/v1?a=b&api_key=geheim99", "https://h?X-Amz-Signature=0123abcd", "eyJhbGciOiJI.eyJzdWIi.c2lnbmF0"],
)  # fmt: skip
def test_what_looks_like_a_key_goes(text: str) -> None:
    shown = secrets.redact(f'{{"said": "{text}", "b": 1}}')
    assert "[redacted]" in shown
    assert json.loads(shown)["b"] == 1  # the text around it stays whole


@pytest.mark.parametrize("name", ["hf-internal-testing/llama-tokenizer", "hf-internal-testing_llama-tokenizer"])
def test_names_of_the_hugging_face_hub_stay(name: str) -> None:
    token = "hf_" + "aB3dE6gH9jK2mN5pQ8sT1vW4xY7zA0cF3h"  # 34 characters, as the hub issues them
    text = f"--llm-tokenizer {name} with {token}, {token[:33]} and https://huggingface.co/{name}?x={token}"
    assert secrets.redact(text) == (
        f"--llm-tokenizer {name} with [redacted], [redacted] and https://huggingface.co/{name}?x=[redacted]"
    )
    assert secrets.mask_option(name) == name


@given(st.lists(st.sampled_from(
    ["sk", "pk-", "rk_", "gsk", "xai-", "nvapi", "hf_", "fw-", "-", "_", "AKIA", "ASIA", "A1B2C3D4E5F6", "dapi",
     "0123456789abcdef", "eyJ", "hbGciOiJI", ".", "Bearer", "BASIC", "ba\u017fic", " ", "x9=", "http://", "a:b@", "?",
     "&", "key=", "api-token=", "SIG=", "v1"]), max_size=12).map("".join))  # fmt: skip
def test_the_check_before_the_shapes_misses_none(text: str) -> None:
    if not secrets._SIGN_OF_A_SHAPE.search(text):
        assert not any(shape.search(text) for shape in secrets._SHAPES)


def test_a_secret_that_is_remembered_later_goes_too() -> None:
    assert secrets.redact("the word is tomorrow-9") == "the word is tomorrow-9"
    secrets.remember("tomorrow-9")
    assert secrets.redact("the word is tomorrow-9") == "the word is [redacted]"
    secrets.remember("yesterday-8", temporary=True)
    assert secrets.redact("yesterday-8") == "[redacted]"


@pytest.mark.parametrize(
    "text",
    ["skeletonization of sk-learn", "the bearer certificates of the house", "https://h/v1?api-version=2024-10-21",
     "max_tokens=1000 and tokens=12", "basic understanding", "hello@example.org", 'http://a","b":"c@d'],
)  # fmt: skip
def test_what_does_not_stays(text: str) -> None:
    assert secrets.redact(text) == text


def test_spellings_of_what_is_known() -> None:
    secrets.remember('geh"eim/+ 1')
    for spelling in ('geh"eim/+ 1', "geh%22eim%2F%2B%201", 'geh\\"eim/+ 1'):
        assert secrets.redact(f"<{spelling}>") == "<[redacted]>"
    secrets.remember("Ab/cd+ef&gh12")
    for spelling in ("Ab\\/cd+ef&gh12", "Ab/cd+ef&amp;gh12"):  # JSON with escaped slashes, and a page of HTML
        assert secrets.redact(f"<{spelling}>") == "<[redacted]>"
    secrets.remember("a part")
    secrets.remember("a part of a whole")
    assert secrets.redact("a part of a whole") == "[redacted]"
    secrets.remember("ollama")  # what people give to a server that wants no key
    assert secrets.redact("ollama") == "ollama"


def test_the_environment_is_asked() -> None:
    secrets.remember_environment(
        {
            "TEAM_API_KEY": "value-of-a-key", "DB_PASSWORD": "value-of-a-password", "SSL_CLIENT_KEY": "/etc/key.pem",
            "LOCUST_LLM_INPUT_TOKENS": "1000,200", "https_proxy": "http://anna:p%40ss-word@proxy:1",
            "MONKEY": "bananas!", "PWD": "some/where/else", "LOCUST_LLM_RUN_KEY": "0123456789abcdef",
        }
    )  # fmt: skip
    for secret in ("value-of-a-key", "value-of-a-password", "p@ss-word", "p%40ss-word", "YW5uYTpwQHNzLXdvcmQ="):
        assert secrets.redact(secret) == "[redacted]"
    for plain in ("/etc/key.pem", "1000,200", "bananas!", "some/where/else", "0123456789abcdef"):
        assert secrets.redact(plain) == plain


def test_only_secret_parts_of_a_query_are_secret() -> None:
    clean = endpoint.clean_url(
        "https://h.test/v1?api-version=2024-10-21-x&subscription-key=abcdef123&sig=0123456&code=zyxwvu"
    )
    assert clean == "https://h.test/v1"
    assert endpoint.query_of(clean)["api-version"] == "2024-10-21-x"
    assert secrets.redact("2024-10-21-x abcdef123 0123456 zyxwvu") == "2024-10-21-x [redacted] [redacted] [redacted]"


def test_logs_of_any_logger_and_handler() -> None:
    secrets.remember("value-of-a-key")
    secrets.redact_logs()
    secrets.redact_logs()  # once
    written = io.StringIO()
    logger = logging.getLogger("somebody.else.entirely")
    handler = logging.StreamHandler(written)
    logger.addHandler(handler)
    try:
        logger.warning("headers %s", {"x": "value-of-a-key"})
        logger.warning("plain %s", "text")
        try:
            raise KeyError("value-of-a-key")
        except KeyError:
            logger.exception("no", stack_info=True)
    finally:
        logger.removeHandler(handler)
    assert "value-of-a-key" not in written.getvalue()
    assert "KeyError: '[redacted]'" in written.getvalue()
    assert "plain text" in written.getvalue()


def test_exceptions_in_tasks_are_kept_and_sent_without_secrets() -> None:
    secrets.remember("value-of-a-key")
    kept: list[Any] = []
    sent: list[Any] = []

    def connect() -> None:
        runner.client = types.SimpleNamespace(send=sent.append)

    runner = types.SimpleNamespace(log_exception=lambda *args: kept.append(args), reset_connection=connect)
    connect()
    secrets.redact_exceptions(runner)
    for _ in range(2):
        runner.log_exception("node", "no value-of-a-key", "line value-of-a-key")
        message = types.SimpleNamespace(type="exception", data={"msg": "value-of-a-key", "traceback": "value-of-a-key"})
        runner.client.send(message)
        runner.reset_connection()
    assert kept == [("node", "no [redacted]", "line [redacted]")] * 2
    assert [message.data for message in sent] == [{"msg": "[redacted]", "traceback": "[redacted]"}] * 2


def test_a_flood_of_logins_keeps_redaction_fast_and_keeps_the_keys() -> None:
    secrets.remember_environment({"TEAM_API_KEY": "value-of-a-key"})
    for number in range(26_000):
        endpoint.clean_url(f"http://anna:pass-word-{number}@host/v1?token=tok-{number:08}")
    began = time.perf_counter()
    shown = secrets.redact("value-of-a-key, pass-word-25999, tok-00025999 " * 10)
    assert time.perf_counter() - began < 0.005  # 38 ms when all of them were kept
    assert shown == "[redacted], [redacted], [redacted] " * 10


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ('{"api_key": "abc", "temperature": 0}', '{"api_key": "[redacted]", "temperature": 0}'),
        ('{"a": [{"password": "geheim"}], "max_tokens": 5}', '{"a": [{"password": "[redacted]"}], "max_tokens": 5}'),
        ('{"a": [{"secret": {"of": "x"}}]}', '{"a": [{"secret": "[redacted]"}]}'),
        ('{"max_tokens":5}', '{"max_tokens":5}'),  # as it was written
        ("db_password=geheim", "db_password=[redacted]"),
        ("team=search", "team=search"),
        (["token=abc", "team=search"], ["token=[redacted]", "team=search"]),
        (5, 5),
        (None, None),
    ],
)
def test_options_are_shown_without_named_secrets(given: Any, shown: Any) -> None:
    assert secrets.mask_option(given) == shown


def test_named_secrets_of_a_body_are_taken_out_of_other_texts_too() -> None:
    secrets.remember_named({"metadata": {"token": "geheim-4711", "password": "short"}, "model": "not-a-secret"})
    assert secrets.redact("geheim-4711, short, not-a-secret") == "[redacted], short, not-a-secret"


@pytest.mark.parametrize(
    "unit",
    ["eyJ-", "-eyJaaaaaaaa", "eyJaaaaaaaa.", "bearer ", "basic\t", "://a:", "a:", "?key-", "sk-", "AKIA", "dapi0123"],
)
def test_a_hostile_text_takes_no_longer_than_another(unit: str) -> None:
    def seconds(text: str) -> float:
        started_s = time.process_time()
        secrets.redact(text)
        return time.process_time() - started_s

    size = 1 << 18
    plain_s = min(seconds("hello there, " * (size // 13)) for _ in range(3))
    for text in ((unit * size)[:size], f"://{unit * size}"[:size], f"?{unit * size}"[:size]):
        assert min(seconds(text) for _ in range(2)) < 20 * plain_s + 0.05  # a quadratic search takes seconds


def test_only_the_beginning_of_a_text_is_looked_at() -> None:
    started_s = time.process_time()
    for _ in range(10):
        assert secrets.redact_start("eyJ-" * (1 << 18), 500).endswith("...")
    assert (time.process_time() - started_s) / 10 < 0.05


def test_control_characters_of_a_server_reach_no_terminal_and_no_file() -> None:
    assert secrets.redact_start("a\0b\x1b[2J\x1b]0;title\x07 \x9b31m\x7fé", 500) == "a b [2J ]0;title 31m é"


def test_a_secret_between_control_characters_goes() -> None:
    secrets.remember("hidden-value-1234")
    assert secrets.redact_start("\x1b[1mhidden-value-1234\x1b[0m", 500) == "[1m[redacted] [0m"


@pytest.mark.parametrize("length", [12, 300, 5000])
def test_a_cut_through_a_secret_shows_nothing_of_it(length: int) -> None:
    secret = ("0123456789" * length)[:length]
    secrets.remember(secret)
    looked_at = 500 + 8192 + max(4096, length)
    for before in (480, 490, 499, *range(looked_at - length - 8, looked_at + 8, 1 + length // 12)):
        shown = secrets.redact_start(" " * before + secret + "." * 30_000, 500)
        assert "012" not in shown


@pytest.mark.parametrize("token", ["eyJhbGciOiJI.eyJzdWIi.c2lnbmF0", "eyJhbGciOiJI.eyJzdWIi."])
def test_a_web_token_behind_other_words_goes_and_they_stay(token: str) -> None:
    assert secrets.redact(f"key-{token} and x") == "key-[redacted] and x"


def test_values_of_headers_for_opentelemetry_are_redacted() -> None:
    secrets.remember_environment(
        {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-team=platform-9321,authorization=Basic%20d2FscnVz"}
    )
    for text in ("platform-9321", "Basic%20d2FscnVz", "d2FscnVz"):
        assert text not in secrets.redact(f"headers: {text}.")
