"""Build the request body of InvokeModel for each model family.

The field names are from AWS's pages on the inference parameters of each model. The module does not handle answers and
does not depend on boto3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_users.prompts import Prompt
from llm_users.users.bedrock.anthropic_messages import conversation as anthropic_conversation
from llm_users.users.bedrock.converse import conversation as converse_conversation

Body = dict[str, Any]
Builder = Callable[[str, Prompt, int], Body]
"""(model, prompt, cap on output tokens) -> body."""

Turn = tuple[str, str]


def turns_of(prompt: Prompt) -> tuple[str, list[Turn]]:
    """Return (system text, [(role, text), ...]) of a prompt, for families that take plain text."""
    if prompt.messages is None:
        return "", [("user", prompt.text or "")]
    turns = [(str(message.get("role", "user")), _plain(message.get("content"))) for message in prompt.messages]
    system = "\n\n".join(text for role, text in turns if role in ("system", "developer"))
    return system, [(role, text) for role, text in turns if role not in ("system", "developer")]


def _plain(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def messages_of(prompt: Prompt) -> list[dict[str, Any]]:
    """Return the messages of a prompt, for families that take a conversation. Given messages are not changed."""
    if prompt.messages is not None:
        return prompt.messages
    return [{"role": "user", "content": prompt.text or ""}]


def anthropic_messages(_model: str, prompt: Prompt, cap: int) -> Body:
    turns, system = anthropic_conversation(prompt)
    body: Body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": cap, "messages": turns}
    return {**body, "system": system} if system else body


def anthropic_text(_model: str, prompt: Prompt, cap: int) -> Body:
    system, turns = turns_of(prompt)
    names = {"assistant": "Assistant"}
    text = system + "".join(f"\n\n{names.get(role, 'Human')}: {content}" for role, content in turns) + "\n\nAssistant:"
    return {"prompt": text, "max_tokens_to_sample": cap}


def llama(model: str, prompt: Prompt, cap: int) -> Body:
    system, turns = turns_of(prompt)
    if "llama2" in model:
        return {"prompt": _instructions(system, turns), "max_gen_len": cap}
    four = "llama4" in model
    head, end = ("<|header_start|>", "<|eot|>") if four else ("<|start_header_id|>", "<|eot_id|>")
    close = "<|header_end|>" if four else "<|end_header_id|>"
    messages = [("system", system), *turns] if system else turns
    text = "".join(f"{head}{role}{close}\n\n{content}{end}" for role, content in messages)
    return {"prompt": f"<|begin_of_text|>{text}{head}assistant{close}\n\n", "max_gen_len": cap}


def mistral_text(_model: str, prompt: Prompt, cap: int) -> Body:
    return {"prompt": _instructions(*turns_of(prompt)), "max_tokens": cap}


def _instructions(system: str, turns: list[Turn]) -> str:
    """Return the prompt in the template of Llama 2 and the first Mistral models."""
    text, opening = "", f"{system}\n\n" if system else ""
    for role, content in turns:
        if role == "assistant":
            text += f" {content}</s>"
        else:
            text += f"<s>[INST] {opening}{content} [/INST]"
            opening = ""
    return text


def titan(_model: str, prompt: Prompt, cap: int) -> Body:
    system, turns = turns_of(prompt)
    names = {"assistant": "Bot"}
    opening = f"{system}\n\n" if system else ""
    text = opening + "".join(f"{names.get(role, 'User')}: {content}\n" for role, content in turns)
    return {"inputText": f"{text}Bot:", "textGenerationConfig": {"maxTokenCount": cap}}


def nova(_model: str, prompt: Prompt, cap: int) -> Body:
    turns, system = converse_conversation(prompt)
    body: Body = {"schemaVersion": "messages-v1", "messages": turns, "inferenceConfig": {"maxTokens": cap}}
    return {**body, "system": system} if system else body


def cohere_command(_model: str, prompt: Prompt, cap: int) -> Body:
    system, turns = turns_of(prompt)
    text = "\n\n".join(filter(None, [system, *(content for _role, content in turns)]))
    return {"prompt": text, "max_tokens": cap, "stream": True}


def cohere_command_r(_model: str, prompt: Prompt, cap: int) -> Body:
    system, turns = turns_of(prompt)
    names = {"assistant": "CHATBOT"}
    body: Body = {"message": turns[-1][1] if turns else "", "max_tokens": cap}
    if len(turns) > 1:
        body["chat_history"] = [{"role": names.get(role, "USER"), "message": content} for role, content in turns[:-1]]
    return {**body, "preamble": system} if system else body


def deepseek_text(_model: str, prompt: Prompt, cap: int) -> Body:
    system, turns = turns_of(prompt)
    bar, space = "\uff5c", "\u2581"  # non-ASCII characters of the template
    names = {"assistant": f"<{bar}Assistant{bar}>"}
    text = "".join(names.get(role, f"<{bar}User{bar}>") + content for role, content in turns)
    begin = f"<{bar}begin{space}of{space}sentence{bar}>"
    return {"prompt": f"{begin}{system}{text}<{bar}Assistant{bar}><think>\n", "max_tokens": cap}


def chat(model: str, prompt: Prompt, cap: int) -> Body:
    """Return the body of OpenAI's chat completions, which most newer models use."""
    # OpenAI's own open models accept only the newer name.
    field = "max_completion_tokens" if "openai." in model else "max_tokens"
    return {"messages": messages_of(prompt), field: cap}
