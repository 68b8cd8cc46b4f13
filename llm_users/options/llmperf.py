"""LLMPerf's options, and what replaces them here. The answer to an LLMPerf option names its replacement.

Source of the names: ``token_benchmark_ray.py`` of https://github.com/ray-project/llmperf.
"""

from __future__ import annotations

from collections.abc import Iterable

REPLACEMENTS = {
    "--model": "--llm-model NAME",
    "--mean-input-tokens": "--llm-input-tokens MEAN,SD",
    "--stddev-input-tokens": "--llm-input-tokens MEAN,SD",
    "--mean-output-tokens": "--llm-output-tokens MEAN,SD",
    "--stddev-output-tokens": "--llm-output-tokens MEAN,SD",
    "--num-concurrent-requests": "--llm-sweep N, or several: 1,2,4,8",
    "--max-num-completed-requests": "--llm-requests N, per stage",
    "--timeout": "--run-time TIME (run) or --llm-timeout TIME (one request)",
    "--additional-sampling-params": "--llm-extra-body JSON",
    "--results-dir": "--csv FOLDER/PREFIX",
    "--metadata": "--llm-metadata KEY=VALUE",
}
API_FLAG = "--llm-api"
APIS = {
    "openai": "chat",
    "anthropic": "messages",
    "litellm": "chat, with the --host of the provider or of a LiteLLM proxy",
}
"""Values of LLMPerf's ``--llm-api``, which is also the name of an option here."""


def replaces(words: Iterable[str]) -> list[str]:
    """Return one line for each LLMPerf option among the words of a command line: its name, and what to use instead."""
    lines = {}
    before = ""
    for word in words:
        flag, _, value = word.partition("=")
        name = flag.replace("_", "-")
        if name in REPLACEMENTS:
            lines[flag] = f"{flag}: use {REPLACEMENTS[name]}"
        elif (api := value or word) in APIS and API_FLAG in (before, flag):
            lines[API_FLAG] = f"{API_FLAG} {api}: use {API_FLAG} {APIS[api]}"
        before = word
    return list(lines.values())
