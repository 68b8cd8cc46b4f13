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


LITELLM = {
    "sample_spec": {
        "input_cost_per_token": 0.0,
        "output_cost_per_token": "a number",
        "mode": "one of: chat, embedding",
    },
    "gpt-4o": {
        "input_cost_per_token": 2.5e-06,
        "output_cost_per_token": 1e-05,
        "cache_read_input_token_cost": 1.25e-06,
        "litellm_provider": "openai",
        "max_tokens": 16384,
    },
    "azure/gpt-4o": {"input_cost_per_token": 3e-06, "output_cost_per_token": 1.2e-05},
    "bedrock/us-east-1/anthropic.claude-instant-v1": {"input_cost_per_token": 8e-07, "output_cost_per_token": 2.4e-06},
    "bedrock/eu-west-1/anthropic.claude-instant-v1": {"input_cost_per_token": 2e-06, "output_cost_per_token": 7e-06},
    "deepinfra/meta-llama/Llama-3": {"input_cost_per_token": 6e-08, "output_cost_per_token": 6e-08},
    "anyscale/meta-llama/Llama-3": {"input_cost_per_token": 6e-08, "output_cost_per_token": 6e-08},
    "claude-3": {
        "input_cost_per_token": 3e-06,
        "output_cost_per_token": 1.5e-05,
        "cache_creation_input_token_cost": 3.75e-06,
    },
    "dall-e-3": {"input_cost_per_image": 0.04, "mode": "image_generation"},
}


def test_prices_of_litellm_s_file_are_per_token_in_dollars() -> None:
    prices = Prices.parse(json.dumps(LITELLM), "litellm.json")
    price = prices.of_model("gpt-4o")
    assert price is not None
    assert prices.currency == "USD"
    assert price.of(1_000_000, 100_000, cache_read=400_000) == pytest.approx(600_000 * 2.5e-6 + 0.5 + 1.0)
    claude = prices.of_model("claude-3")
    assert claude is not None
    assert claude.cache_write == pytest.approx(3.75e-6)
    assert claude.cache_read == pytest.approx(3e-6)  # the file has no price for it: the price of other input


@pytest.mark.parametrize(
    ("model", "entry"),
    [
        ("gpt-4o", "gpt-4o"),  # the exact name, although azure/gpt-4o ends with it
        ("azure/gpt-4o", "azure/gpt-4o"),
        ("openai/gpt-4o", "gpt-4o"),
        ("meta-llama/Llama-3", "deepinfra/meta-llama/Llama-3"),  # two entries with the same prices
        ("bedrock/eu-west-1/anthropic.claude-instant-v1", "bedrock/eu-west-1/anthropic.claude-instant-v1"),
        ("gpt-4o-mini", None),  # a part of a name is not the name
        ("4o", None),
        ("dall-e-3", None),
        ("sample_spec", None),
        ("", None),
    ],
)
def test_models_of_litellm_s_file_are_found_with_or_without_the_provider(model: str, entry: str | None) -> None:
    prices = Prices.parse(json.dumps(LITELLM), "litellm.json")
    assert prices.of_model(model) == (prices.models[entry] if entry is not None else None)


def test_an_ambiguous_model_of_litellm_s_file_is_an_error_that_names_the_candidates() -> None:
    prices = Prices.parse(json.dumps(LITELLM), "litellm.json")
    with pytest.raises(PriceError) as refused:
        prices.of_model("anthropic.claude-instant-v1")
    assert str(refused.value) == (
        "litellm.json: several entries with different prices match the model 'anthropic.claude-instant-v1': "
        "bedrock/eu-west-1/anthropic.claude-instant-v1, bedrock/us-east-1/anthropic.claude-instant-v1. Copy the entry "
        "that applies into another file under the name 'anthropic.claude-instant-v1'."
    )


def test_an_invalid_price_of_litellm_s_file_is_named() -> None:
    entries = {**LITELLM, "odd": {"input_cost_per_token": 1e-6, "output_cost_per_token": -1}}
    with pytest.raises(PriceError, match=r"litellm\.json: odd: output_cost_per_token: -1 is not a price per token"):
        Prices.parse(json.dumps(entries), "litellm.json")
