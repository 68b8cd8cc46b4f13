"""Notes of the load side that decide whether the figures can be believed stand under the tables."""

from __future__ import annotations

import json
from pathlib import Path

import llm_reports
from llm_users.collect.files import RunFiles
from llm_users.record import RequestRecord
from llm_users.run_files import MANIFEST_JSON, path_of


def test_what_the_run_noted_about_trust_is_under_the_tables(tmp_path: Path) -> None:
    prefix = tmp_path / "run"
    files = RunFiles(str(prefix), offsets=False)
    record = RequestRecord(request_id="r-0", run_id="r", stage=1, measured=1, model="m", framework="f", phase="measure",
                           ttft_s=0.2, end_to_end_latency_s=1.0, output_tokens=10, concurrency=1)  # fmt: skip
    files.write_request(record.row())
    files.close()
    notes = ["--llm-insecure: certificates were not verified", "no OPENAI_API_KEY in the environment"]
    path_of(prefix, MANIFEST_JSON).write_text(json.dumps({"run_id": "r", "notes": notes}))
    text = llm_reports.report_run(prefix, out=tmp_path / "report").text
    assert "--llm-insecure: certificates were not verified" in " ".join(text.split())
    assert "OPENAI_API_KEY" not in text
