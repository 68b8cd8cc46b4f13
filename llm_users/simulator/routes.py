"""Routes requests by path to models, health, counters, completions and Bedrock, and injects the spec's error statuses.

The paths of OpenAI's and Anthropic's APIs are also those of Bedrock's endpoints: bedrock-runtime has ``/openai/v1`` and
``/anthropic/v1``, bedrock-mantle also has ``/v1``. The module does not depend on sockets or the schedule.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec import UNSET

from llm_users.simulator import faults, http_wire, openai_wire, quota, sse_wire
from llm_users.simulator.answer import Answer, Reply, WireAnswer
from llm_users.simulator.bedrock import model_routes
from llm_users.simulator.bedrock.access import Access, bearer_token, is_signed, service_of
from llm_users.simulator.bedrock.errors import INVALID_API_KEY, BedrockError
from llm_users.simulator.bedrock.routes import BedrockRoutes, is_bedrock
from llm_users.simulator.http_wire import Request
from llm_users.simulator.openai_wire import OpenAIAnswer
from llm_users.simulator.quota import TokenQuotas
from llm_users.simulator.server_metrics import CONTENT_TYPE
from llm_users.simulator.spec import Spec
from llm_users.simulator.sse_wire import MESSAGES, RESPONSES, SseAnswer, Typed

_MESSAGES = {
    429: "Rate limit reached for requests",
    503: "The engine is currently overloaded, please try again later",
    529: "Overloaded",
}

_NOT_ON_AWS = ("/v1/completions", "/v1/messages", "/openai/v1/models")
"""The paths that neither endpoint of Bedrock has. It lists models only on bedrock-mantle, at ``/v1/models``."""


class _Refusal(Exception):
    """An error response. ``kind`` is its type in OpenAI's shape (empty: from the status), ``reason`` is for the log."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        kind: str = "",
        injected: bool = False,
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.kind, self.injected, self.reason = status, code, kind, injected, reason


class Routes:
    """The application of one endpoint."""

    def __init__(self, spec: Spec, stats: Callable[[], dict[str, Any]], metrics: Callable[[], bytes]) -> None:
        self._spec = spec
        self._stats = stats
        self._metrics = metrics
        self._number = 0
        self._access = Access(spec)
        self._quotas = TokenQuotas(spec)
        self._bedrock = BedrockRoutes(spec, self._access, self._quotas)
        self._paths: dict[str, tuple[str, Callable[[Request], Reply | Answer]]] = {
            "/v1/chat/completions": ("POST", partial(self._complete, api="chat")),
            "/v1/completions": ("POST", partial(self._complete, api="completions")),
            "/v1/responses": ("POST", partial(self._complete, api=RESPONSES)),
            "/v1/messages": ("POST", partial(self._complete, api=MESSAGES)),
            "/v1/models": ("GET", self._models),
            "/openai/v1/chat/completions": ("POST", partial(self._complete, api="chat")),
            "/openai/v1/responses": ("POST", partial(self._complete, api=RESPONSES)),
            "/openai/v1/models": ("GET", self._models),
            "/anthropic/v1/messages": ("POST", partial(self._complete, api=MESSAGES)),
            "/v1/stats": ("GET", lambda request: self._json(request, self._stats())),
            "/health": ("GET", lambda request: self._json(request, {"status": "ok"})),
        }
        if spec.metrics != "off":
            self._paths["/metrics"] = "GET", self._metrics_text
        if spec.routes == "aws":
            for path in _NOT_ON_AWS:
                del self._paths[path]

    def handle(self, request: Request) -> Reply | Answer:
        if is_bedrock(request.path):
            self._number += 1
            return self._bedrock.handle(request, self._number)
        method, serve = self._paths.get(request.path, ("", self._unknown_path))
        if method and request.method != method:
            refusal = _Refusal(405, f"{request.path} is for {method}, not {request.method}")
            return self._refused(refusal, keep_alive=request.keep_alive, headers={"allow": method})
        try:
            if "/v1/" in request.path and method and request.method == "GET":
                self._check_access(request)
            return serve(request)
        except _Refusal as refusal:
            return self._refused(refusal, keep_alive=request.keep_alive)

    def ended(self, answer: Answer, sent_tokens: int) -> None:
        self._quotas.settle(answer, sent_tokens)

    def refuse(self, status: int, message: str) -> Reply:
        return self._refused(_Refusal(status, message), keep_alive=False)

    def _unknown_path(self, request: Request) -> Reply:
        hint = f". Did you mean /v1{request.path}?" if f"/v1{request.path}" in self._paths else ""
        raise _Refusal(404, f"Invalid URL ({request.method} {request.path}){hint}", "unknown_url")

    def _models(self, request: Request) -> Reply:
        model = {"id": self._spec.model, "object": "model", "created": 1700000000, "owned_by": "llm-simulator"}
        return self._json(request, {"object": "list", "data": [model]})

    def _metrics_text(self, request: Request) -> Reply:
        headers = {"content-type": CONTENT_TYPE}
        data = http_wire.response(200, self._metrics(), headers=headers, keep_alive=request.keep_alive)
        return Reply(data, 200, close=not request.keep_alive)

    def _json(self, request: Request, value: Any) -> Reply:
        data = http_wire.response(200, openai_wire.json_bytes(value), keep_alive=request.keep_alive)
        return Reply(data, 200, close=not request.keep_alive)

    def _complete(self, request: Request, *, api: str | Typed) -> Reply | Answer:
        """Serve a completion. ``api`` is chat, completions, or the shape of an API whose events name their type."""
        self._number += 1
        number = self._number
        answer: Reply | Answer
        try:
            self._check_access(request)
            status = self._spec.status_error(number)
            if status is not None:
                message = _MESSAGES.get(status, "The server had an error while processing your request")
                raise _Refusal(status, message, "rate_limit_exceeded" if status == 429 else None, injected=True)
            if isinstance(api, str):
                answer = self._openai_answer(request, number, chat=api == "chat")
            else:
                answer = self._typed_answer(request, number, api)
        except (_Refusal, ValueError) as error:
            refusal = error if isinstance(error, _Refusal) else _Refusal(400, str(error))
            is_chat = api == "chat"
            failed_id = openai_wire.response_id(number, chat=is_chat) if isinstance(api, str) else api.identify(number)
            return self._refused(
                refusal,
                keep_alive=request.keep_alive,
                failed_id=failed_id,
                claude=api is MESSAGES,
                on_aws=request.path.startswith("/anthropic/"),
            )
        return answer if isinstance(answer, Reply) else faults.met(self._spec, answer, openai_wire.EVENT_START)

    def _openai_answer(self, request: Request, number: int, *, chat: bool) -> Reply | OpenAIAnswer:
        spec = self._spec
        body = openai_wire.read_body(request.body, chat=chat)
        active = 1 + self._stats()["active"] if spec.wrong_above else 1
        answer = OpenAIAnswer(spec, number, body, request, active=active)
        if spec.check_model and body.model != spec.model:
            message = f"The model `{body.model}` does not exist or you do not have access to it."
            raise _Refusal(404, message, "model_not_found")
        self._check_model(request, answer, body.model)
        if spec.usage == "refuse" and body.stream_options is not UNSET:
            raise _Refusal(400, "Unrecognized request argument supplied: stream_options")
        if spec.usage == "refuse422" and body.stream_options is not UNSET:
            refusal = openai_wire.extra_field_body(body.stream_options or None)
            headers = {"x-request-id": answer.response_id}
            data = http_wire.response(422, refusal, headers=headers, keep_alive=request.keep_alive)
            return Reply(data, 422, close=not request.keep_alive, failed_id=answer.response_id)
        return answer

    def _typed_answer(self, request: Request, number: int, shape: Typed) -> SseAnswer:
        if shape is MESSAGES and "anthropic-version" not in request.headers:
            raise _Refusal(400, "anthropic-version: header is required")
        answer = SseAnswer(self._spec, number, shape, request)
        if self._spec.check_model and answer.model != self._spec.model:
            raise _Refusal(404, f"model: {answer.model}", "model_not_found")
        self._check_model(request, answer, answer.model)
        return answer

    def _check_model(self, request: Request, answer: WireAnswer, model: str) -> None:
        """Check that the route has this model, and that its quotas admit the request."""
        if self._spec.routes == "aws":
            error = model_routes.refusal(model, request.path, service_of(request))
            if error is not None:
                raise _Refusal(error.status, error.message, error.code, kind="invalid_request_error", reason=error.code)
        exceeded = self._quotas.exceeded(answer, model)
        if exceeded:
            text = quota.message(exceeded, model)
            raise _Refusal(429, text, "rate_limit_exceeded", injected=True, reason=exceeded)

    def _check_access(self, request: Request) -> None:
        error = self._access.refusal(request)
        if error is not None:
            raise _denied(error)
        if self._spec.api_key and not is_signed(request):
            self._check_key(request)

    def _check_key(self, request: Request) -> None:
        key = bearer_token(request)
        if not key:
            raise _Refusal(401, "You didn't provide an API key: send it as Authorization: Bearer KEY.")
        if not hmac.compare_digest(key.encode(), self._spec.api_key.encode()):
            raise _Refusal(401, "Incorrect API key provided.", "invalid_api_key")

    def _refused(
        self,
        refusal: _Refusal,
        *,
        keep_alive: bool,
        failed_id: str = "",
        headers: dict[str, str] | None = None,
        claude: bool = False,
        on_aws: bool = False,
    ) -> Reply:
        status, shape, text = refusal.status, self._spec.error_shape, str(refusal)
        body, content_type = openai_wire.error_body(shape, status, text, refusal.code, refusal.kind)
        if claude and shape == "object":
            body = openai_wire.json_bytes(sse_wire.refusal(status, text, failed_id if on_aws else ""))
        headers = dict(headers or {})
        if failed_id:
            headers["request-id" if claude else "x-request-id"] = failed_id
        if refusal.injected and self._spec.retry_after:
            headers["retry-after"] = str(math.ceil(self._spec.retry_after))
        data = http_wire.response(status, body, content_type=content_type, headers=headers, keep_alive=keep_alive)
        return Reply(data, status, close=not keep_alive, failed_id=failed_id, reason=refusal.reason)


def _denied(error: BedrockError) -> _Refusal:
    """Return an error of signatures and keys in the shape of OpenAI's and Anthropic's APIs on AWS.

    The status and the names are those that users of AWS reported for both endpoints in 2026: 401 instead of the 403 of
    Converse and Invoke.
    """
    reason, text = error.code, error.message
    if error is INVALID_API_KEY:
        text = "Invalid bearer token"
    return _Refusal(401, text, "invalid_api_key", kind="permission_denied_error", reason=reason)
