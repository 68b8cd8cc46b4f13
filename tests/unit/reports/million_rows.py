"""How long the tables of many rows take, and how much memory.

``python -m tests.unit.reports.million_rows [ROWS] [FOLDER]`` prints both.
Not a test: it takes a minute and 300 MB of disk. It prints seconds and the peak of the process that made the tables.
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llm_users.record import REQUEST_COLUMNS
from llm_users.run_files import REQUESTS_CSV, path_of
from tests.unit.reports.rows_on_disk import record, write_csv

LEVELS = (1, 4, 16, 64, 256)


def write(prefix: Path, rows: int) -> None:
    """Rows as a run of five stages writes them."""
    dice = random.Random(1)

    def lines() -> object:
        for i in range(rows):
            stage = i * len(LEVELS) // rows
            ttft_s, tokens = dice.lognormvariate(-1.5, 0.5), dice.randint(20, 400)
            tpot_s = dice.gauss(0.02, 0.002)
            latency_s = ttft_s + tokens * tpot_s
            yield record(
                i, stage=stage + 1, stage_end=stage + 1, concurrency=LEVELS[stage], ttft_s=ttft_s, ttfat_s=ttft_s,
                tpot_s=tpot_s, end_to_end_latency_s=latency_s, last_token_s=latency_s, output_tokens=tokens,
                window_tokens=float(tokens), response_id=f"chatcmpl-{i:x}", gap_p50_s=tpot_s, gap_p95_s=tpot_s,
                gap_p99_s=tpot_s, gap_max_s=tpot_s, chunks=tokens, reads=tokens, http_status=200, cached_tokens=0,
                request_output_throughput_token_per_s=tokens / latency_s, finish_reason="stop", name="chat",
                user_class="Chat", user_id=f"0-{i % 256}", error_code="500" if dice.random() < 0.002 else None,
                measured=int(dice.random() > 0.02), started_at=1_700_000_000 + i * 0.01,
            ).row()  # fmt: skip

    write_csv(path_of(prefix, REQUESTS_CSV), [column.name for column in REQUEST_COLUMNS], lines())  # type: ignore[arg-type]


def main() -> None:
    """Write the rows where they are not there yet, make the tables of them, say what it took."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp())
    prefix = folder / f"rows{rows}"
    if not path_of(prefix, REQUESTS_CSV).exists():
        write(prefix, rows)
    began = time.monotonic()
    arguments = [sys.executable, "-m", "llm_reports.main", str(prefix), *sys.argv[3:]]
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    took_s = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime
    print(f"{rows:,} rows: {took_s:.1f} s ({cpu_s:.1f} s of CPU), peak {used.ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
