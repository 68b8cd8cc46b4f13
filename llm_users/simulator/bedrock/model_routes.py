"""Which models Bedrock serves on which routes, and the errors for a model on another route (`routes=aws`).

The table follows AWS's user guide and model cards, and the survey in the notebooks of ``sample-per-model-bedrock``
(aws-samples), read in November 2026. AWS moves models between routes: edit the table when it does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from llm_users.simulator.bedrock.access import MANTLE, RUNTIME
from llm_users.simulator.bedrock.errors import ERRORS, BedrockError
from llm_users.simulator.bedrock.families import provider_of

CHAT, RESPONSES, MESSAGES, NATIVE = "chat/completions", "responses", "messages", "model"
"""The APIs; `NATIVE` is Converse and Invoke."""

_V1, _OPENAI, _ANTHROPIC = "/v1/", "/openai/v1/", "/anthropic/v1/"


@dataclass(frozen=True, slots=True)
class ModelRoutes:
    """The routes of the models whose ids without a region prefix match ``ids``. ``models`` names them for people."""

    models: str
    ids: str
    runtime: tuple[str, ...] = ()
    mantle: tuple[str, ...] = ()


# The first line that matches decides.
TABLE = (
    ModelRoutes("OpenAI GPT-5.4, GPT-5.5", r"openai\.gpt-5\.[45]\b.*", mantle=(_OPENAI + RESPONSES,)),
    ModelRoutes("OpenAI GPT-5.6 and later", r"openai\.gpt-(?!oss).*", (_OPENAI + RESPONSES,), (_OPENAI + RESPONSES,)),
    ModelRoutes("gpt-oss-safeguard", r"openai\.gpt-oss-safeguard.*", (NATIVE, _OPENAI + CHAT), (_V1 + CHAT,)),
    ModelRoutes("gpt-oss", r"openai\.gpt-oss.*", (NATIVE, _OPENAI + CHAT), (_V1 + CHAT, _V1 + RESPONSES)),
    ModelRoutes("Claude before 4.5", r"anthropic\.claude-(v|instant|[23]|(opus|sonnet)-4-(0|1|2025)).*", (NATIVE,)),
    ModelRoutes("Claude 4.5 and later", r"anthropic\..*", (NATIVE, _ANTHROPIC + MESSAGES), (_ANTHROPIC + MESSAGES,)),
    ModelRoutes("Gemma 4, Grok", r"(google\.gemma-4|xai\.).*", mantle=(_OPENAI + CHAT, _OPENAI + RESPONSES)),
    ModelRoutes(
        "DeepSeek V3, Gemma 3, GLM, Kimi, MiniMax, Mistral (Large 3, Ministral, Magistral, Devstral, Voxtral), "
        "Nemotron, Palmyra Vision, Qwen",
        r"(deepseek\.v3|google|minimax|mistral\.(devstral|magistral|ministral|mistral-large-3|voxtral)|moonshot"
        r"|moonshotai|nvidia|qwen|writer\.palmyra-vision|zai)\b.*",
        (NATIVE, _OPENAI + CHAT),
        (_V1 + CHAT,),
    ),
    ModelRoutes("all others", r".*", (NATIVE,)),
)


def refusal(model: str, path: str, service: str) -> BedrockError | None:
    """Return AWS's error if it does not serve the model on the path, else None.

    ``service`` is the one in the scope of the signature; without it, a path of both endpoints may mean either. The
    code of the error is the one in OpenAI's shape, except for Converse and Invoke.
    """
    routes = next(routes for routes in TABLE if re.fullmatch(routes.ids, ".".join(provider_of(model))))
    if "/model/" in path:
        return None if NATIVE in routes.runtime else _INVALID_MODEL
    if path.startswith(_V1):
        served, where = routes.mantle, MANTLE
    elif service:
        served, where = (routes.mantle if service == MANTLE else routes.runtime), service
    else:
        served, where = routes.mantle + routes.runtime, MANTLE
    if path in served:
        return None
    prefixed = [route for route in served if route != NATIVE]
    if where == RUNTIME:
        return BedrockError("not_found_error", 404, f"The model '{model}' doesn't exist or doesn't support this API")
    if not prefixed:
        return BedrockError("not_found_error", 404, f"The model '{model}' does not exist")
    if any(_api(route) == _api(path) for route in prefixed):
        return BedrockError("validation_error", 400, f"model `{model}` isn't supported on this route")
    return BedrockError("validation_error", 400, f"The model '{model}' does not support the '{path}' API")


_INVALID_MODEL = BedrockError(ERRORS["validation"].code, 400, "The provided model identifier is invalid.")


def _api(path: str) -> str:
    return path.rpartition("/v1/")[2]
