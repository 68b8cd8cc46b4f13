"""Create the boto3 client of a worker: region, endpoint, credentials and transport.

A process creates its client once, before the first user starts, because this takes about 50 ms.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import Any

import boto3
import botocore
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.session import Session

from llm_users import secrets
from llm_users._version import __version__
from llm_users.load.worker.context import RunContext
from llm_users.transport.botocore import network_of, only_stamp, send_through
from llm_users.users.bedrock.credentials import BEARER_VARIABLE, HeldCredentials, describe, keep_fresh
from llm_users.users.openai.client import KEYS_WITHHELD

HOST_VARIABLE = "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"
FALLBACK_REGION = "us-east-1"

_LEAST_POOL = 100
_OPEN_LOOP_POOL = 1000  # an open loop has no number of users
_PLACEHOLDER = "simulator"


def make_client(
    run_context: RunContext, host: str, session: Session, *, attempts: int = 1, retry_mode: str = "standard"
) -> Any:
    """Return a client for Bedrock's runtime. Raises ValueError with a message for the user."""
    options = run_context.options
    simulated = options.simulator is not None
    if simulated:
        host = host.removesuffix("/v1")
    region = region_of(session, options.region, host)
    auth, about = _authentication(run_context, session, host, simulated=simulated)
    make = partial(
        boto3.session.Session(botocore_session=session).client,
        "bedrock-runtime",
        region_name=region,
        endpoint_url=host or None,
    )
    open_loop = (options.max_in_flight or _OPEN_LOOP_POOL) if options.open_loop else 0
    config = Config(
        # botocore rebuilds its default user agent twice per request, which takes 100 of 420 us.
        user_agent=f"locust-llm/{__version__} Boto3/{boto3.__version__} Botocore/{botocore.__version__}",
        # A retry would hide throttling inside the time to first token, so settings in the environment are ignored.
        retries={"total_max_attempts": attempts, "mode": retry_mode},
        connect_timeout=run_context.pool.connect_timeout_s,
        read_timeout=options.timeout_s,
        # One connection per user; with boto3's default of 10, 400 requests opened 237 connections.
        max_pool_connections=max(_LEAST_POOL, run_context.gate.plan.users, open_loop, options.most_users),
        **auth,
    )
    client = make(config=config)
    if options.transport == "sdk":  # the endpoint, and therefore the proxy, is known only after the client is created
        network, verify = network_of(run_context.pool, client.meta.endpoint_url)
        client = make(config=config.merge(Config(**network)), verify=verify)
    _add_headers(client, run_context.request_headers({}))
    if options.transport == "fast":
        send_through(client, run_context.pool)
    else:
        only_stamp(client)
        # Its debug log contains whole bodies, and Invoke's are base64, in which secrets cannot be redacted.
        logging.getLogger("botocore.parsers").setLevel(logging.INFO)
    secrets.redact_logs()
    run_context.note(f"Bedrock: {client.meta.endpoint_url}, region {region}, {about}")
    return client


def _add_headers(client: Any, headers: dict[str, str]) -> None:
    """Add the headers of --llm-header-env to all requests, before signing."""

    def add(request: Any, **_event: Any) -> None:
        for name, value in headers.items():
            request.headers[name] = value

    if headers:
        client.meta.events.register("before-sign.bedrock-runtime.*", add)


def region_of(session: Session, wanted: str | None, host: str) -> str:
    """Return the region from --llm-region, AWS_REGION, AWS_DEFAULT_REGION or the profile, in this order.

    With a custom endpoint the default is ``FALLBACK_REGION``. Raises ValueError if there is no region.
    """
    # botocore ignores AWS_REGION.
    region = wanted or os.environ.get("AWS_REGION") or session.get_config_variable("region")
    if not region and host:
        region = FALLBACK_REGION
    if not region:
        raise ValueError(
            "no AWS region: set --llm-region (for example us-east-1), AWS_REGION, or a region in the profile"
        )
    return str(region)


def _authentication(
    run_context: RunContext, session: Session, host: str, *, simulated: bool
) -> tuple[dict[str, Any], str]:
    """Return the authentication arguments for the client's Config, and a description for the note."""
    if simulated:  # signing takes as long as with a real key
        placeholder = Credentials(_PLACEHOLDER, _PLACEHOLDER, method="explicit")
        session.register_component("credential_provider", _FixedCredentials(placeholder))
        return {"signature_version": "v4"}, "signed with a placeholder key for the simulator"
    if run_context.withhold_keys:
        run_context.note(KEYS_WITHHELD)
        return {"signature_version": botocore.UNSIGNED}, "requests are not signed"
    bearer = run_context.secret(BEARER_VARIABLE)
    if bearer:
        os.environ[BEARER_VARIABLE] = bearer  # botocore reads the variable itself and does not strip a newline
        if host.startswith("http://"):
            raise ValueError(
                f"{BEARER_VARIABLE} is set and overrides all other credentials, but boto3 sends bearer keys only over "
                f"https, and --host is {host}. Use https, or unset the variable."
            )
        return {}, f"bearer key from {BEARER_VARIABLE} (it overrides access keys, profiles and roles)"
    try:
        source = session.get_component("credential_provider").load_credentials()
        held = HeldCredentials(source) if source is not None else None
    except Exception as error:
        raise ValueError(
            f"cannot load AWS credentials ({type(error).__name__}): {secrets.redact(str(error))}"
        ) from None
    if held is None:
        if not host:
            raise ValueError(
                "no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                f"{BEARER_VARIABLE}"
            )
        return {"signature_version": botocore.UNSIGNED}, "no credentials: requests are not signed"
    session.register_component("credential_provider", _FixedCredentials(held))
    about = describe(held, session.get_config_variable("profile")) + _lifetime(held, run_context)
    run_context.at_end.append(keep_fresh(held, run_context.note))
    return {}, about


def _lifetime(held: HeldCredentials, run_context: RunContext) -> str:
    """Return a description of the lifetime of these credentials."""
    if held.lifetime_s is None:
        return " (they are not renewed automatically)" if held.token else ""
    text = f", valid for {held.lifetime_s / 60:.0f} min, renewed in the background"
    if run_context.run_s is not None and held.lifetime_s < run_context.run_s:
        text += f"; that is less than the run's {run_context.run_s / 60:.0f} min, so it depends on the renewal"
    return text


class _FixedCredentials:
    """A credential provider that always returns the same credentials."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def load_credentials(self) -> Credentials:
        return self._credentials
