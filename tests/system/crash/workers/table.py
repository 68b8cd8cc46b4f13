"""Run the tests of failing workers and print what each of them compared, as a table.

    python -m tests.system.crash.workers.table [pytest options, such as -k network]

Columns: requests in the server's log; rows; requests that the manifest counts as lost; requests whose row is only in a
spool that is left, for llm-report; requests that are none of these; double rows; measured of asked per stage, and
further rows of the measuring phase with `measured` 0; the exit code of the master; those of the workers; what the
user reads. Exit code: pytest's.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

from tests.system.crash.workers.cluster import TABLE_HEAD, TABLE_VARIABLE, Comparison, Stage


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "comparisons.jsonl"
        os.environ[TABLE_VARIABLE] = str(lines)
        tests = Path(__file__).with_name("test_failures_of_workers.py")
        code = pytest.main([str(tests), *sys.argv[1:]])
        print("\n" + TABLE_HEAD)
        for line in lines.read_text().splitlines() if lines.exists() else []:
            fields = json.loads(line)
            stages = [Stage(**stage) for stage in fields.pop("stages")]
            print(Comparison(**fields, stages=stages).line())
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
