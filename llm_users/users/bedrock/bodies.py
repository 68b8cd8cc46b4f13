"""The request body of each family of models, as InvokeModel takes it.

The field names are those of AWS's pages on each model's inference parameters. Knows no answers and no boto3.
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
    """(system text, [(role, text), ...]): a prompt for families that take plain text."""
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
    """A prompt for families that take a conversation; one that was given is left as it is."""
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
    text = system + "".join(f"\n\n{names.get(role, 'Human')}: {said}" for role, said in turns) + "\n\nAssistant:"
    return {"prompt": text, "max_tokens_to_sample": cap}


def llama(model: str, prompt: Prompt, cap: int) -> Body:
    system, turns = turns_of(prompt)
    if "llama2" in model:
        return {"prompt": _instructions(system, turns), "max_gen_len": cap}
    four = "llama4" in model
    head, end = ("<|header_start|>", "<|eot|>") if four else ("<|start_header_id|>", "<|eot_id|>")
    close = "<|header_end|>" if four else "<|end_header_id|>"
    said = [("system", system), *turns] if system else turns
    text = "".join(f"{head}{role}{close}\n\n{words}{end}" for role, words in said)
    return {"prompt": f"<|begin_of_text|>{text}{head}assistant{close}\n\n", "max_gen_len": cap}


def mistral_text(_model: str, prompt: Prompt, cap: int) -> Body:
    return {"prompt": _instructions(*turns_of(prompt)), "max_tokens": cap}


def _instructions(system: str, turns: list[Turn]) -> str:
    """Llama 2's and the first Mistral models' template."""
    text, opening = "", f"{system}\n\n" if system else ""
    for role, said in turns:
        if role == "assistant":
            text += f" {said}</s>"
        else:
            text += f"<s>[INST] {opening}{said} [/INST]"
            opening = ""
    return text


def titan(_model: str, prompt: Prompt, cap: int) -> Body:
    system, turns = turns_of(prompt)
    names = {"assistant": "Bot"}
    text = (f"{system}\n\n" if system else "") + "".join(f"{names.get(role, 'User')}: {said}\n" for role, said in turns)
    return {"inputText": f"{text}Bot:", "textGenerationConfig": {"maxTokenCount": cap}}


def nova(_model: str, prompt: Prompt, cap: int) -> Body:
    turns, system = converse_conversation(prompt)
    body: Body = {"schemaVersion": "messages-v1", "messages": turns, "inferenceConfig": {"maxTokens": cap}}
    return {**body, "system": system} if system else body


def cohere_command(_model: str, prompt: Prompt, cap: int) -> Body:
    system, turns = turns_of(prompt)
    text = "\n\n".join(filter(None, [system, *(said for _role, said in turns)]))
    return {"prompt": text, "max_tokens": cap, "stream": True}


def cohere_command_r(_model: str, prompt: Prompt, cap: int) -> Body:
    system, turns = turns_of(prompt)
    names = {"assistant": "CHATBOT"}
    body: Body = {"message": turns[-1][1] if turns else "", "max_tokens": cap}
    if len(turns) > 1:
        body["chat_history"] = [{"role": names.get(role, "USER"), "message": said} for role, said in turns[:-1]]
    return {**body, "preamble": system} if system else body


def deepseek_text(_model: str, prompt: Prompt, cap: int) -> Body:
    system, turns = turns_of(prompt)
    bar, space = "\uff5c", "\u2581"  # the template's own letters, not those of ASCII
    names = {"assistant": f"<{bar}Assistant{bar}>"}
    text = "".join(names.get(role, f"<{bar}User{bar}>") + said for role, said in turns)
    begin = f"<{bar}begin{space}of{space}sentence{bar}>"
    return {"prompt": f"{begin}{system}{text}<{bar}Assistant{bar}><think>\n", "max_tokens": cap}


def chat(model: str, prompt: Prompt, cap: int) -> Body:
    """Chat completions as OpenAI has them: most models that came later."""
    # OpenAI's own open models know only the newer name.
    field = "max_completion_tokens" if "openai." in model else "max_tokens"
    return {"messages": messages_of(prompt), field: cap}
