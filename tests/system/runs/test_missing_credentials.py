"""A run on AWS without credentials: one line says what was looked for and what to set, before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.project import ROOT
from tests.system.locust_runs import Locust

BEDROCK = str(ROOT / "locustfiles" / "bedrock.py")
CHAT = """
from locust import task
from llm_users import BedrockOpenAIUser

class Chat(BedrockOpenAIUser):
    @task
    def ask(self):
        self.chat()
"""


@pytest.mark.parametrize("api", ["converse", "chat"])
def test_the_first_line_says_what_was_looked_for_and_what_to_set(locust: Locust, tmp_path: Path, api: str) -> None:
    locustfile = BEDROCK
    if api == "chat":
        locustfile = str(tmp_path / "chat.py")
        Path(locustfile).write_text(CHAT)
    environment = {
        "HOME": str(tmp_path),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
    }
    done = locust.run("--llm-model", "m", "--llm-region", "us-east-1", "--llm-sweep", "1", locustfile=locustfile,
                      env=environment)  # fmt: skip
    assert done.code == 2, done.err
    lines = [line for line in done.err.splitlines() if "INFO" not in line]
    assert len(lines) == 1, done.err
    for words in ("locust-llm: no AWS credentials: looked for AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID",
                  f"profile 'default' in {tmp_path}/credentials and {tmp_path}/config", "Set AWS_PROFILE"):  # fmt: skip
        assert words in lines[0]
    assert not done.prefix.with_name("run_llm_requests.csv").exists()
