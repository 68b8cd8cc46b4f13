import dataclasses

import pytest

from llm_users.simulator.spec import DIALECTS, Spec, known_keys


def test_reads_every_kind_of_value():
    spec = Spec.parse("ttft=200ms, itl=50us,capacity=8,jitter=0.1,tokens=7,role=none,done=off,error=429:0.1+500:.05")
    assert spec.ttft_s == pytest.approx(0.2)
    assert spec.itl_s == pytest.approx(50e-6)
    assert (spec.capacity, spec.jitter, spec.tokens, spec.role, spec.done) == (8, 0.1, 7, "none", False)
    assert spec.error == ((429, 0.1), (500, 0.05))


def test_a_duration_has_the_units_of_the_options():
    spec = Spec.parse("ttft=1m30s,itl=2m,retry_after=1h,comments=0")
    assert (spec.ttft_s, spec.itl_s, spec.retry_after, spec.comments) == (90, 120, 3600, 0)
    assert str(spec) == "ttft=1m30s,itl=2m,retry_after=1h"


def test_empty_text_is_the_default():
    assert Spec.parse("") == Spec()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ttft=200", "write a number with its unit"),
        ("ttft=-1ms", "unit"),
        ("ttft=2h", "at most 1h"),
        ("itl=3601s", "at most"),
        ("tokens=0", "from 1"),
        ("tokens=many", "whole number"),
        ("jitter=nan", "needs a number"),
        ("usage=maybe", "one of on, off, always"),
        ("done=yes", "on or off"),
        ("error=429", "429:0.1+500:0.05"),
        ("error=429:0.9+500:0.9", "more than 1"),
        ("error=200:1", "STATUS:PROBABILITY"),
        ("bedrock_error=throttling", "EXCEPTION:PROBABILITY"),
        ("bedrock_error=hunger:0.1", "the exceptions are throttling, throttling_tokens"),
        ("bedrock_error=throttling:0.9+ModelTimeoutException:0.9", "more than 1"),
        ("stream_error=throttlingException", "throttlingException@5"),
        ("stream_error=ThrottlingException@5", "the exceptions are throttlingException, "),
        ("stream_error=throttlingException@5+throttlingException@6", "more than 1"),
        ("cut=0", "from 1 token on"),
        ("cut=5:2", "TOKENS:PROBABILITY"),
        ("fault=half", "the faults are reset, stall"),
        ("fault=slow@3", "the faults are reset, stall"),
        ("fault=reset:2", "reset:0.1+stall@5:0.1"),
        ("fault=reset+stall", "more than 1"),
        ("colour=blue", "unknown key 'colour'"),
        ("ttft", "not KEY=VALUE"),
        ("ttft=1ms,ttft=2ms", "given twice"),
        ("dialect=klingon", "one of openai"),
        ("model=", "non-empty"),
        ("sigv4=secret", "needs ACCESS:SECRET"),
        ("sigv4=:secret", "needs ACCESS:SECRET"),
        ("routes=azure", "one of any, aws"),
        ("input_tpm=-1", "whole number"),
    ],
)
def test_complains_kindly(text, says):
    with pytest.raises(ValueError) as caught:
        Spec.parse(text)
    assert says in str(caught.value)
    if "twice" not in says:
        assert known_keys() in str(caught.value)


@pytest.mark.parametrize("text", ["api_key=ca\x01nary", "sigv4=ca\x01nary", "sigv4=a/b:ca\x01nary"])
def test_a_key_is_not_shown_in_a_complaint(text):
    with pytest.raises(ValueError) as caught:
        Spec.parse(text)
    assert "nary" not in str(caught.value)


def test_secrets_of_a_spec():
    assert Spec.parse("api_key=sesame,sigv4=AKIA:a/b+c:d=").secrets == ("sesame", "a/b+c:d=")
    assert Spec.parse("sigv4=simulator:simulator").secrets == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ttft=1ms,itl=50us,error=429:0.1+500:0.05,api_key=sesame,done=off,retry_after=2s",
        *(f"dialect={name}" for name in DIALECTS),
        "dialect=transformers,usage=on,done=on",
        "bedrock_error=throttling:0.1+ExpiredTokenException:0.05,cut=5:0.5+9:0.5,cached=4,tool=3",
        "stream_error=throttlingException@0+modelStreamErrorException@7:0",
        "fault=reset:0.1+reset@0:0.1+giant@20:0.25",
        "sigv4=AKIA:a/b+c:d=,region=eu-west-1,routes=aws,input_tpm=1000,output_tpm=200",
    ],
)
def test_text_form_gives_the_same_spec_back(text):
    spec = Spec.parse(text)
    again = Spec.parse(str(spec))
    for f in dataclasses.fields(Spec):
        value = getattr(spec, f.name)
        assert getattr(again, f.name) == (pytest.approx(value) if isinstance(value, float) else value), f.name


def test_a_given_key_wins_over_its_dialect():
    assert Spec.parse("dialect=transformers").usage == "finish"
    assert Spec.parse("usage=always,dialect=transformers").usage == "always"
    assert Spec.parse("dialect=transformers").done is False
