"""Addresses of Bedrock's APIs: the endpoint of a region, and the base path of a model."""

from __future__ import annotations

import pytest
from botocore.session import Session

from llm_users.users.bedrock.routes import check_endpoint, openai_path, origin_of_region

RUNTIME_ONLY = "https://bedrock-runtime.us-east-1.amazonaws.com"


@pytest.mark.parametrize(
    ("model", "mantle"),
    [
        ("openai.gpt-oss-20b", "/v1"),
        ("openai.gpt-oss-safeguard-120b", "/v1"),
        ("openai.gpt-5.5", "/openai/v1"),
        ("us.openai.gpt-5.6-sol", "/openai/v1"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/us.openai.gpt-5.5", "/openai/v1"),
        ("xai.grok-4.3", "/openai/v1"),
        ("google.gemma-3-27b-it", "/v1"),
        ("google.gemma-4-31b", "/openai/v1"),
        ("qwen.qwen3-32b", "/v1"),
        ("moonshotai.kimi-k2.5", "/v1"),
        ("deepseek.v3.2", "/v1"),
        ("my-model", "/v1"),
    ],
)
def test_the_base_path_of_a_model(model: str, mantle: str) -> None:
    assert openai_path("mantle", model) == mantle
    assert openai_path("runtime", model) == "/openai/v1"


def test_the_path_differs_from_the_sdks_where_aws_documents_another_one() -> None:
    """The SDK's default on mantle is /openai/v1 for all models."""
    from openai import OpenAI
    from openai.providers.bedrock import bedrock

    sdk = OpenAI(provider=bedrock(endpoint="mantle", region="us-east-1", api_key="key"))
    assert str(sdk.base_url) == "https://bedrock-mantle.us-east-1.api.aws/openai/v1/"
    sdk = OpenAI(provider=bedrock(endpoint="runtime", region="us-east-1", api_key="key"))
    assert str(sdk.base_url) == f"{RUNTIME_ONLY}{openai_path('runtime', 'openai.gpt-oss-20b-1:0')}/"


@pytest.mark.parametrize(
    ("endpoint", "region", "url"),
    [
        ("runtime", "us-east-1", RUNTIME_ONLY),
        ("runtime", "eu-central-1", "https://bedrock-runtime.eu-central-1.amazonaws.com"),
        ("runtime", "cn-north-1", "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"),
        ("mantle", "ap-northeast-1", "https://bedrock-mantle.ap-northeast-1.api.aws"),
    ],
)
def test_the_endpoint_of_a_region(endpoint: str, region: str, url: str) -> None:
    assert origin_of_region(Session(), endpoint, region) == url


@pytest.mark.parametrize("endpoint", ["runtime", "mantle"])
def test_a_region_that_does_not_exist(endpoint: str) -> None:
    with pytest.raises(ValueError, match="not a region"):
        origin_of_region(Session(), endpoint, "not a region")


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("mantle", RUNTIME_ONLY),
        ("mantle", "https://vpce-1a.bedrock-runtime.us-east-1.vpce.amazonaws.com"),
        ("mantle", "https://bedrock-runtime-fips.us-east-1.amazonaws.com"),
        ("runtime", "https://bedrock-mantle.us-east-1.api.aws/v1"),
    ],
)
def test_an_address_of_the_other_endpoint_is_refused(endpoint: str, host: str) -> None:
    with pytest.raises(ValueError, match="set --llm-bedrock-endpoint"):
        check_endpoint(endpoint, host)
    check_endpoint({"runtime": "mantle", "mantle": "runtime"}[endpoint], host)
    check_endpoint(endpoint, "http://127.0.0.1:8000")
