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
from llm_users.users.bedrock.authentication import authenticate, region_of
from llm_users.users.bedrock.credentials import BEARER_VARIABLE

_LEAST_POOL = 100
_OPEN_LOOP_POOL = 1000  # an open loop has no number of users


def make_client(
    run_context: RunContext, host: str, session: Session, *, attempts: int = 1, retry_mode: str = "standard"
) -> Any:
    """Return a client for Bedrock's runtime. Raises ValueError with a message for the user."""
    options = run_context.options
    if options.simulator is not None:
        host = host.removesuffix("/v1")
    region = region_of(session, options.region, host)
    auth = authenticate(run_context, session, host)
    if auth.bearer:
        os.environ[BEARER_VARIABLE] = auth.bearer  # botocore reads the variable itself and does not strip a newline
        signature: dict[str, Any] = {}
    elif auth.credentials is not None:
        session.register_component("credential_provider", _FixedCredentials(auth.credentials))
        signature = {"signature_version": "v4"}  # also if a bearer key is withheld from the simulator
    else:
        signature = {"signature_version": botocore.UNSIGNED}
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
        **signature,
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
    run_context.note(f"Bedrock: {client.meta.endpoint_url}, region {region}, {auth.about}")
    return client


def _add_headers(client: Any, headers: dict[str, str]) -> None:
    """Add the headers of --llm-header-env to all requests, before signing."""

    def add(request: Any, **_event: Any) -> None:
        for name, value in headers.items():
            request.headers[name] = value

    if headers:
        client.meta.events.register("before-sign.bedrock-runtime.*", add)


class _FixedCredentials:
    """A credential provider that always returns the same credentials."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def load_credentials(self) -> Credentials:
        return self._credentials
