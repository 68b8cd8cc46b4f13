"""Routes a request to one of Bedrock's four operations to an answer or to an exception.

It does not depend on sockets or the schedule.
"""

from __future__ import annotations

import math

from llm_users.simulator import faults, quota
from llm_users.simulator.answer import Answer, Reply
from llm_users.simulator.bedrock import model_routes
from llm_users.simulator.bedrock.access import RUNTIME, Access
from llm_users.simulator.bedrock.errors import ERRORS, BedrockError, error_of, of_status
from llm_users.simulator.bedrock.families import CONVERSE, family_of
from llm_users.simulator.bedrock.wire import (
    EVENT_START,
    BadBody,
    BedrockAnswer,
    read_json,
    read_path,
    refusal,
    require,
    response_id,
)
from llm_users.simulator.http_wire import Request
from llm_users.simulator.quota import TokenQuotas
from llm_users.simulator.spec import Spec

_UNKNOWN = BedrockError("UnknownOperationException", 404, "There is no such operation here.")


def is_bedrock(path: str) -> bool:
    return path.startswith(("/model/", "/v1/model/"))


class BedrockRoutes:
    """Serves the paths for which `is_bedrock` is true."""

    def __init__(self, spec: Spec, access: Access, quotas: TokenQuotas) -> None:
        self._spec = spec
        self._access = access
        self._quotas = quotas

    def handle(self, request: Request, number: int) -> Reply | Answer:
        target = read_path(request.path)
        if target is None or request.method != "POST":
            return self._refused(_UNKNOWN, request, number)
        denied = self._access.refusal(request)
        if denied is None and self._spec.routes == "aws":
            denied = model_routes.refusal(target.model, request.path, RUNTIME)
        if denied is not None:
            return self._refused(denied, request, number, reason=denied.code)
        name, status = self._spec.exception(number), self._spec.status_error(number)
        injected = error_of(name) if name else of_status(status) if status else None
        if injected is not None:
            return self._refused(injected, request, number, injected=True)
        try:
            body = read_json(request.body)
            shape = CONVERSE if target.converse else family_of(target.model, body)
            if shape is None or (self._spec.check_model and target.model != self._spec.model):
                raise BadBody("The provided model identifier is invalid.")
            require(body, shape.needs)
            if complaint := shape.complaint(body):
                raise BadBody(complaint)
            answer = BedrockAnswer(self._spec, number, target, shape, body, request)
            exceeded = self._quotas.exceeded(answer, target.model)
            if exceeded:
                text = quota.message(exceeded, target.model)
                error = ERRORS["throttling_tokens"]
                return self._refused(error, request, number, text, injected=True, reason=exceeded)
            return faults.met(self._spec, answer, EVENT_START)
        except BadBody as problem:
            return self._refused(ERRORS["validation"], request, number, str(problem))
        except RecursionError:
            return self._refused(ERRORS["validation"], request, number, "Malformed input request: nested too deeply")

    def _refused(
        self,
        error: BedrockError,
        request: Request,
        number: int,
        message: str = "",
        *,
        injected: bool = False,
        reason: str = "",
    ) -> Reply:
        headers: dict[str, str] = {}
        if injected and self._spec.retry_after:
            headers["retry-after"] = str(math.ceil(self._spec.retry_after))
        data = refusal(error, number, message=message, headers=headers, keep_alive=request.keep_alive)
        return Reply(data, error.status, close=not request.keep_alive, failed_id=response_id(number), reason=reason)
