"""One request per family, and where its answers have their text: written down apart from the code that makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
ASKED = "why is the sky blue"
CLAUDE_3 = "anthropic.claude-3-haiku-20240307-v1:0"
CHAT: Json = {"messages": [{"role": "user", "content": ASKED}]}
BLOCKS: Json = {"messages": [{"role": "user", "content": [{"text": ASKED}]}]}


@dataclass(frozen=True)
class Family:
    model: str
    body: Json  # asks for 4 tokens
    text: Callable[[Json], str | None]  # of one document of the stream
    whole: Callable[[Json], str]
    finish: Callable[[Json], str | None]  # of one document of the stream
    length: str = "length"
    prompt_words: int = 5


def _choice(name: str) -> Callable[[Json], Any]:
    return lambda d: d["choices"][0].get(name)


FAMILIES = {
    "anthropic-messages": Family(
        CLAUDE_3,
        {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 4, **CHAT},
        lambda d: d["delta"]["text"] if d["type"] == "content_block_delta" else None,
        lambda d: d["content"][0]["text"],
        lambda d: d["delta"]["stop_reason"] if d["type"] == "message_delta" else None,
        "max_tokens",
    ),
    "anthropic-text": Family(
        "anthropic.claude-instant-v1",
        {"prompt": f"\n\nHuman: {ASKED}\n\nAssistant:", "max_tokens_to_sample": 4},
        lambda d: d["completion"],
        lambda d: d["completion"],
        lambda d: d["stop_reason"],
        "max_tokens",
        7,
    ),
    "llama": Family(
        "us.meta.llama3-3-70b-instruct-v1:0",
        {"prompt": ASKED, "max_gen_len": 4},
        lambda d: d["generation"],
        lambda d: d["generation"],
        lambda d: d["stop_reason"],
    ),
    "nova": Family(
        "us.amazon.nova-lite-v1:0",
        {"schemaVersion": "messages-v1", "inferenceConfig": {"maxTokens": 4}, **BLOCKS},
        lambda d: d.get("contentBlockDelta", {}).get("delta", {}).get("text"),
        lambda d: d["output"]["message"]["content"][0]["text"],
        lambda d: d.get("messageStop", {}).get("stopReason"),
        "max_tokens",
    ),
    "mistral-text": Family(
        "mistral.mistral-7b-instruct-v0:2",
        {"prompt": f"<s>[INST] {ASKED} [/INST]", "max_tokens": 4},
        lambda d: d["outputs"][0]["text"],
        lambda d: d["outputs"][0]["text"],
        lambda d: d["outputs"][0]["stop_reason"],
        prompt_words=7,
    ),
    "mistral-chat": Family(
        "mistral.mistral-large-2407-v1:0",
        {"max_tokens": 4, **CHAT},
        lambda d: d["choices"][0]["message"]["content"],
        lambda d: d["choices"][0]["message"]["content"],
        _choice("stop_reason"),
    ),
    "jamba": Family(
        "ai21.jamba-1-5-large-v1:0",
        {"max_tokens": 4, **CHAT},
        lambda d: d["choices"][0]["delta"].get("content"),
        lambda d: d["choices"][0]["message"]["content"],
        _choice("finish_reason"),
    ),
    "deepseek-text": Family(
        "us.deepseek.r1-v1:0",
        {"prompt": ASKED, "max_tokens": 4},
        lambda d: d["choices"][0]["text"],
        lambda d: d["choices"][0]["text"],
        _choice("stop_reason"),
    ),
    **{
        name: Family(
            model,
            {"max_completion_tokens": 4, **CHAT},
            lambda d: d["choices"][0]["delta"].get("content"),
            lambda d: d["choices"][0]["message"]["content"],
            _choice("finish_reason"),
        )
        for name, model in {
            "deepseek-chat": "deepseek.v3-v1:0",
            "gpt-oss": "openai.gpt-oss-120b-1:0",
            "qwen": "qwen.qwen3-32b-v1:0",
            "kimi": "moonshot.kimi-k2-thinking",
            "writer": "us.writer.palmyra-x5-v1:0",
        }.items()
    },
}
