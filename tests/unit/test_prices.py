"""Price files: what they say about a model, and what is said of a file that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_users.prices import PriceError, Prices

HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
LIST = {"currency": "USD", "models": {"claude-3-haiku": {"input": 1000, "output": 5000, "cache_read": 100}}}


def test_a_price_list() -> None:
    prices = Prices.parse(json.dumps(LIST), "p.json")
    price = prices.of_model(f"us.{HAIKU}")
    assert price is not None
    # 1 000 000 tokens of input, of which half came from the cache.
    assert price.of(1_000_000, 0, cache_read=500_000) == pytest.approx(550)
    assert price.of(0, 2_000_000) == pytest.approx(10_000)
    assert prices.of_model("meta.llama") is None
    assert prices.shown(0.01234) == "0.0123 USD"


def test_the_longest_name_wins() -> None:
    models = {"claude": {"input": 1, "output": 1}, "claude-3-haiku": {"input": 2, "output": 2}}
    price = Prices.parse(json.dumps({"models": models}), "p.json").of_model(HAIKU)
    assert price is not None
    assert price.input == pytest.approx(2e-6)


def test_one_file_has_prices_per_token_and_per_hour() -> None:
    text = 'currency = "EUR"\n[models.tiny]\ninput = 1\noutput = 2\n[models.own]\ngpu_hour = 2.5\n'
    prices = Prices.parse(text, "prices.toml")
    assert (prices.currency, list(prices.models)) == ("EUR", ["tiny"])
    assert (prices.of_model("my-own"), prices.hour_of_model("my-own")) == (None, 2.5)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"models": {"a": {"input": 1}}}', '{"models": {"a": {"input": -1, "output": 1}}}',
     '{"models": {"a": {"input": 1, "output": "x"}}}', '{"models": {"a": {"input": 1, "output": 1, "tips": 1}}}'],
)  # fmt: skip
def test_a_bad_price_list(text: str) -> None:
    with pytest.raises(PriceError, match=r"p\.json"):
        Prices.parse(text, "p.json")


def test_machines_are_found_by_the_longest_name_too() -> None:
    models = {"llama": {"gpu_hour": 2}, "llama-70b": {"gpu_hour": 2.5, "gpus": 4}}
    prices = Prices.parse(json.dumps({"models": models}), "p.json")
    assert prices.hour_of_model("meta/llama-70b-instruct") == 10
    assert prices.hour_of_model("llama") == 2
    assert prices.hour_of_model("gpt") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "p.json: not a price file"),
        ('{"prices": {}}', "p.json: not a price file (KeyError: 'models'). Write for example {\"currency\""),
        ('{"models": {"a": {"input": 1}}}', "p.json: a: needs an input and an output price, per million tokens"),
        ('{"models": {"a": "gpu_hour"}}', "p.json: a: needs an input and an output price"),
        ('{"models": {"a": {"input": 1, "output": 2, "tips": 3}}}', "p.json: a: 'tips' is not a price; the prices are"),
        ('{"models": {"a": {"input": -1, "output": 2}}}', "p.json: a: input: -1 is not a price; write a number"),
        ('{"models": {"a": {"input": NaN, "output": 2}}}', "p.json: a: input: nan is not a price"),
        ('{"models": {"a": {"input": true, "output": 2}}}', "p.json: a: input: True is not a price"),
        ('{"models": {"a": {"gpu_hour": 0}}}', "p.json: a: 0 is not a number above 0; write gpu_hour and gpus"),
        ('{"models": {"a": {"gpu_hour": 1, "gpus": "two"}}}', "p.json: a: 'two' is not a number above 0"),
        ('{"models": {"a": {"gpu_hour": 1, "input": 2}}}', "p.json: a: 'input' together with gpu_hour"),
        ('{"models": {"a": {"gpu_hour": 1' + "0" * 400 + "}}}", "is not a number above 0"),
    ],
)
def test_an_error_names_the_file_the_entry_and_what_to_write(text: str, said: str) -> None:
    with pytest.raises(PriceError) as refused:
        Prices.parse(text, "p.json")
    assert said in str(refused.value)


def test_files_are_read_as_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text("\ufeff" + json.dumps({**LIST, "currency": "€"}), encoding="utf-8")
    assert Prices.read(path).currency == "€"
    path.write_bytes('{"currency": "€"'.encode("utf-16"))
    with pytest.raises(PriceError, match=r"prices\.json: not UTF-8 text \(byte 1\)"):
        Prices.read(path)
    with pytest.raises(PriceError, match=r"none\.json: cannot be read \(No such file"):
        Prices.read(tmp_path / "none.json")
