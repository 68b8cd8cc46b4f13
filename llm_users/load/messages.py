"""The messages between coordinator and load processes. One process sends them to itself."""

from __future__ import annotations

# Coordinator to load processes.
RUN = "llm_run"  # run_id, worker, workers: a run begins
STAGE = "llm_stage"  # a StagePlan's fields: a stage is coming
GO = "llm_go"  # stage, quota
END = "llm_end"  # stage: nothing more starts in it
FINISH = "llm_finish"  # abort, grace_s: the run is over

# Load processes to the coordinator.
READY = "llm_ready"  # worker, stage, waiting
ROWS = "llm_rows"  # rows
DONE = "llm_done"  # a StageTotals' fields
FINAL = "llm_final"  # worker, sent
NOTE = "llm_note"  # text
REFUSED = "llm_refused"  # reason: the run cannot be
