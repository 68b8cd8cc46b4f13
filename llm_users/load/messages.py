"""The messages between coordinator and load processes. One process sends them to itself."""

from __future__ import annotations

# Coordinator to load processes.
# run_id, run_key, worker, workers, live, withhold_keys, first_prompt, prompt_step, distributed, spool, rows_per_s
RUN = "llm_run"
STAGE = "llm_stage"  # a StagePlan's fields: a stage is coming
WHO = "llm_who"  # nothing: whoever listens shall say HELLO (again)
# stage, quota, users: of the stage over all workers, origin: wall clock that the arrivals of an open loop are counted
# from, else None
GO = "llm_go"
QUOTA = "llm_quota"  # stage, quota: the share has changed; whoever waits for a word may go on
END = "llm_end"  # stage: nothing more starts in it
FINISH = "llm_finish"  # abort, grace_s: the run is over
SETTLED = "llm_settled"  # run_id: every row of this load process is on the coordinator's disk

# Load processes to the coordinator.
HELLO = "llm_hello"  # nothing: this load process listens now, which is later than Locust says it is connected
READY = "llm_ready"  # worker, stage, waiting: users that have come, alive: users that run, ended: users that have ended
ROWS = "llm_rows"  # rows
COUNT = "llm_count"  # worker, stage, started, measured, total, held, shards, counts, host: once a second
BACK = "llm_back"  # worker, stage, measured: it stood still for a while and waits for a word
DONE = "llm_done"  # a StageTotals' fields
FINAL = "llm_final"  # worker, sent
NOTE = "llm_note"  # text
LIVE = "llm_live"  # a Beat's fields, once a second, when the run is watched
REFUSED = "llm_refused"  # reason: the run cannot be
