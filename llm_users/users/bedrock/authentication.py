"""Region and authentication of Bedrock's users: a bearer key, or signatures with credentials of botocore's chain.

The module decides which of them is in force and describes it for the user; it does not create clients.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from botocore.credentials import Credentials
from botocore.session import Session

from llm_users import secrets
from llm_users.load.worker.context import RunContext
from llm_users.users.bedrock.credentials import BEARER_VARIABLE, HeldCredentials, describe, keep_fresh
from llm_users.users.openai.client import KEYS_WITHHELD

HOST_VARIABLE = "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"
FALLBACK_REGION = "us-east-1"
_PLACEHOLDER = "simulator"


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


@dataclass(frozen=True, slots=True)
class Authentication:
    """How the requests of a client are authenticated: with ``bearer``, with signatures of ``credentials``, or not."""

    about: str
    """A description for the user, without secrets."""
    credentials: Credentials | None = None
    bearer: str | None = field(default=None, repr=False)


def authenticate(run_context: RunContext, session: Session, host: str) -> Authentication:
    """Return the authentication of this process, and renew its credentials until the end of the run.

    Raises ValueError with a message for the user.
    """
    if run_context.options.simulator is not None:  # signing takes as long as with a real key
        placeholder = Credentials(_PLACEHOLDER, _PLACEHOLDER, method="explicit")
        return Authentication("signed with a placeholder key for the simulator", placeholder)
    if run_context.withhold_keys:
        run_context.note(KEYS_WITHHELD)
        return Authentication("requests are not signed")
    bearer = run_context.secret(BEARER_VARIABLE)
    if bearer:
        if host.startswith("http://"):
            raise ValueError(
                f"{BEARER_VARIABLE} is set and overrides all other credentials, but bearer keys are sent only over "
                f"https, and --host is {host}. Use https, or unset the variable."
            )
        about = f"bearer key from {BEARER_VARIABLE} (it overrides access keys, profiles and roles)"
        return Authentication(about, bearer=bearer)
    try:
        source = session.get_component("credential_provider").load_credentials()
        held = HeldCredentials(source) if source is not None else None
    except Exception as error:
        raise ValueError(_not_loaded(error)) from None
    if held is None:
        if not host:
            raise ValueError(_no_credentials(session))
        return Authentication("no credentials: requests are not signed")
    about = describe(held, session.get_config_variable("profile")) + _lifetime(held, run_context)
    run_context.at_end.append(keep_fresh(held, run_context.note))
    return Authentication(about, held)


def credentials_problem(session: Session, host: str) -> str | None:
    """Return what to set if this process has no credentials for AWS, or None. An own endpoint needs none."""
    if host or os.environ.get(BEARER_VARIABLE, "").strip():
        return None
    try:
        source = session.get_component("credential_provider").load_credentials()
    except Exception as error:
        return _not_loaded(error)
    return _no_credentials(session) if source is None else None


def _no_credentials(session: Session) -> str:
    profile = session.get_config_variable("profile") or "default"
    files = [session.get_config_variable(name) for name in ("credentials_file", "config_file")]
    return (
        f"no AWS credentials: looked for {BEARER_VARIABLE}, for AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, for the "
        f"profile {profile!r} in {' and '.join(map(str, files))}, and for the role of a container or an EC2 instance. "
        "Set AWS_PROFILE (after `aws sso login` for single sign-on), or the two keys, or the bearer key"
    )


def _not_loaded(error: Exception) -> str:
    return f"cannot load AWS credentials ({type(error).__name__}): {secrets.redact(str(error))}"


def _lifetime(held: HeldCredentials, run_context: RunContext) -> str:
    """Return a description of the lifetime of these credentials."""
    if held.lifetime_s is None:
        return " (they are not renewed automatically)" if held.token else ""
    text = f", valid for {held.lifetime_s / 60:.0f} min, renewed in the background"
    if run_context.run_s is not None and held.lifetime_s < run_context.run_s:
        text += f"; that is less than the run's {run_context.run_s / 60:.0f} min, so it depends on the renewal"
    return text
