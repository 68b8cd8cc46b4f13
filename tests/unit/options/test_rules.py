"""Options that exclude or need each other."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from llm_users.options.command_line import read_options
from llm_users.options.parsers import OptionError


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompt": "a", "prompts": __file__}, "--llm-prompt and --llm-prompts exclude each other"),
        ({"repeat_prompts": True, "run_key": "a"}, "--llm-repeat-prompts and --llm-run-key exclude each other"),
        ({"rate": "1", "sweep": "1"}, "--llm-rate and --llm-sweep exclude each other"),
        ({"max_in_flight": "1"}, "--llm-max-in-flight needs an open loop"),
        ({"model": "a", "targets": "b"}, "--llm-model and --llm-targets exclude each other"),
        ({"find": "ttft_p95<1", "sweep": "4,2"}, "--llm-sweep: with --llm-find, write the range of the search"),
        ({"images": "1", "api": "completions"}, "--llm-images: legacy completions accept only text"),
        ({"budget": "1"}, "--llm-budget needs prices"),
        ({"trace_speed": "2"}, "give one with --llm-trace"),
        ({"trace": __file__, "rate": "1"}, "--llm-trace and --llm-rate exclude each other"),
        ({"trace": __file__, "stage_time": "1s"}, "--llm-trace and --llm-stage-time exclude each other"),
        ({"trace": __file__, "shared_prefix": "9x2"}, "--llm-trace and --llm-shared-prefix exclude each other"),
        ({"trace": __file__, "length_mix": "1:9/9"}, "--llm-trace and --llm-length-mix exclude each other"),
        ({"trace": __file__, "warmup": "2"}, "--llm-trace and --llm-warmup exclude each other"),
    ],
)
def test_a_broken_rule_says_what_to_do(given: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError) as refused:
        read_options(Namespace(**{f"llm_{name}": value for name, value in given.items()}))
    assert said in str(refused.value)


def test_a_mix_replaces_both_lengths() -> None:
    options = read_options(Namespace(llm_length_mix="80:500/100,20:4000/500"))
    assert (options.input_tokens, options.output_tokens) == options.length_mix


def test_the_default_warmup_goes_with_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("{}")
    assert read_options(Namespace(llm_trace=str(path), llm_warmup="1")).open_loop
