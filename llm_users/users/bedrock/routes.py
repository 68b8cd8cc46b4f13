"""The addresses of Bedrock's OpenAI- and Anthropic-shaped APIs: two endpoints, and paths that depend on the model.

Bedrock serves these APIs on ``bedrock-runtime`` (base path ``/openai/v1``) and on ``bedrock-mantle``. There, most
models have the base path ``/v1``, and some ``/openai/v1``. AWS documents the base path of a model only in its model
card, and the openai SDK always takes ``/openai/v1``. The wrong one is answered with "isn't supported on this route".
"""

from __future__ import annotations

import re

import botocore
from botocore.config import Config
from botocore.exceptions import InvalidRegionError
from botocore.session import Session
from botocore.utils import validate_region_name

RUNTIME, MANTLE = "runtime", "mantle"
"""Values of ``--llm-bedrock-endpoint``."""

SIGNING_SERVICE = {RUNTIME: "bedrock", MANTLE: "bedrock-mantle"}
"""The name of the service in signatures, by endpoint."""

OPENAI_PATH, MANTLE_PATH, ANTHROPIC_PATH = "/openai/v1", "/v1", "/anthropic/v1"

_OPENAI_PATH_ON_MANTLE = re.compile(r"(?:[a-z-]+\.)?(?:openai\.(?!gpt-oss)|xai\.|google\.gemma-(?!3))")
"""Matches ids of models whose model card names ``/openai/v1`` (read in November 2026): GPT-5, Grok and Gemma 4. The
first part is the prefix of an inference profile, such as ``us.`` or ``global.``."""


def origin_of_region(session: Session, endpoint: str, region: str) -> str:
    """Return the URL of AWS's endpoint in a region, without a path. Raises ValueError for an invalid region."""
    try:
        validate_region_name(region)
    except InvalidRegionError:
        raise ValueError(f"{region!r} is not a region of AWS: set --llm-region, for example to us-east-1") from None
    if endpoint == MANTLE:
        return f"https://bedrock-mantle.{region}.api.aws"
    config = Config(signature_version=botocore.UNSIGNED)  # the client is only asked for its address
    return str(session.create_client("bedrock-runtime", region_name=region, config=config).meta.endpoint_url)


def openai_path(endpoint: str, model: str) -> str:
    """Return the base path of OpenAI's APIs for a model: an id, the id of an inference profile, or an ARN."""
    if endpoint == MANTLE and not _OPENAI_PATH_ON_MANTLE.match(model.rpartition("/")[2]):
        return MANTLE_PATH
    return OPENAI_PATH


def check_endpoint(endpoint: str, host: str) -> None:
    """Raise ValueError if ``host`` is an address of the other endpoint, also one of a VPC endpoint."""
    other = MANTLE if endpoint == RUNTIME else RUNTIME
    if re.search(rf"[/.]bedrock-{other}[.-]", host):
        raise ValueError(
            f"{host} is an address of bedrock-{other}, but the run uses bedrock-{endpoint}: set --llm-bedrock-endpoint "
            f"{other}"
        )
