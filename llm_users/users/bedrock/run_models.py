"""The models of a run on Bedrock, which lists no model that a run could take by itself."""

from __future__ import annotations

from typing import Any

from llm_users.load.worker.context import RunContext


def models_of_run(user_class: Any, run_context: RunContext) -> list[str]:
    """Return the models to which users of this class send requests. Raises ValueError if there is none.

    Raises ValueError for targets with a URL too.
    """
    model = user_class.model or run_context.model
    if model is None:
        raise ValueError(
            "no model: set --llm-model to an id, profile or ARN as in `aws bedrock list-foundation-models`"
        )
    targets = run_context.options.targets if user_class.model is None else ()
    if any(target.url for target in targets):
        raise ValueError("--llm-targets: on Bedrock list only models; set the endpoint with --llm-region or --host")
    return [target.model for target in targets] or [model]
