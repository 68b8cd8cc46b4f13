"""The addresses of Bedrock's OpenAI- and Anthropic-shaped APIs: two endpoints, and paths that depend on the model.

Bedrock serves these APIs on ``bedrock-runtime`` (base path ``/openai/v1``) and on ``bedrock-mantle``. There, most
models have the base path ``/v1``, and some ``/openai/v1``. AWS documents the base path of a model only in its model
card, and the openai SDK always takes ``/openai/v1``. The wrong one is answered with "isn't supported on this route".
"""

from __future__ import annotations

import re

from botocore.session import Session
from botocore.utils import is_valid_endpoint_url

RUNTIME, MANTLE = "runtime", "mantle"
"""Values of ``--llm-bedrock-endpoint``."""

SIGNING_SERVICE = {RUNTIME: "bedrock", MANTLE: "bedrock-mantle"}
"""The name of the service in signatures, by endpoint."""

OPENAI_PATH, MANTLE_PATH, ANTHROPIC_PATH = "/openai/v1", "/v1", "/anthropic/v1"

_PROFILE = re.compile(r"(?:[a-z]{2,6}(?:-gov)?|global)\.(?=[a-z0-9-]+\.)")
"""Matches the prefix of an inference profile: ``us.``, ``eu.``, ``us-gov.``, ``global.``."""

_OPENAI_PATH_ON_MANTLE = re.compile(r"openai\.(?!gpt-oss)|xai\.|google\.gemma-(?!3)")
"""Matches ids of models whose model card names ``/openai/v1`` (read in November 2026): GPT-5, Grok and Gemma 4."""


def origin_of_region(session: Session, endpoint: str, region: str) -> str:
    """Return the URL of AWS's endpoint in a region, without a path. Raises ValueError for an invalid region."""
    url = f"https://bedrock-mantle.{region}.api.aws"
    if endpoint == RUNTIME:
        resolver = session.get_component("endpoint_resolver")
        resolved = resolver.construct_endpoint("bedrock-runtime", region) or {}
        url = f"https://{resolved.get('hostname', '')}"
    if not is_valid_endpoint_url(url):
        raise ValueError(f"{region!r} is not a region of AWS: set --llm-region, for example to us-east-1")
    return url


def openai_path(endpoint: str, model: str) -> str:
    """Return the base path of OpenAI's APIs for a model: an id, the id of an inference profile, or an ARN."""
    model = _PROFILE.sub("", model.rpartition("/")[2], count=1)
    if endpoint == MANTLE and not _OPENAI_PATH_ON_MANTLE.match(model):
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
