"""The messages between coordinator and load processes. One process sends them to itself.

Every message of a run has ``run``, the run's id; those of load processes also have ``worker``, the rank. What belongs
to another run, or comes from another process than the one that has the rank, is refused.
"""

from __future__ import annotations

import hashlib

# Coordinator to load processes. All have ``run``, except WELCOME.
# run_id, run_key, worker, workers, live, withhold_keys, first_prompt, prompt_step, distributed, spool, prefix,
# rows_per_s
RUN = "llm_run"
STAGE = "llm_stage"  # a StagePlan's fields: a stage is coming
WELCOME = "llm_welcome"  # refused: why the worker cannot take part, or None: it can
# stage, quota, users: of the stage over all workers; in an open loop also lead_s (its origin, from now), parts,
# max_in_flight
GO = "llm_go"
# stage, parts, max_in_flight: the parts of an open loop's schedule that are now this worker's
ARRIVALS = "llm_arrivals"
# stage, quota, number: the share has changed; with the number of a BACK, the worker may go on
QUOTA = "llm_quota"
ACK = "llm_ack"  # number: of the COUNT that came
END = "llm_end"  # stage: nothing more starts in it
FINISH = "llm_finish"  # abort, grace_s: the run is over
RESEND = "llm_resend"  # rows are missing: send those of the spool
SETTLED = "llm_settled"  # every row of this load process is on the coordinator's disk
LEAVE = "llm_leave"  # the coordinator does not know this run of the load process: end it, and report as ready again

# Load processes to the coordinator. All have ``run`` and ``worker``, except HELLO.
HELLO = "llm_hello"  # version, protocol: in Locust's report until WELCOME comes
PREPARING = "llm_preparing"  # stage, built, wanted: it still builds prompts for the stage; once a second
# stage, waiting: users that have come, all_users_came: 1 when no further user comes, no_users_reason: why none does
READY = "llm_ready"
ROWS = "llm_rows"  # rows
# number, stage, started, measured, total, held, shards, counts, host; at: the stage that it was told of; gone: its
# users were let go; waiting: users at the gate; quota; over: it has nothing more to do. Once a second, answered: ACK.
COUNT = "llm_count"
BACK = "llm_back"  # number, stage, measured: it has had no answer for a while and waits for QUOTA with this number
DONE = "llm_done"  # a StageTotals' fields
FINAL = "llm_final"  # sent
NOTE = "llm_note"  # text
LIVE = "llm_live"  # a Beat's fields, once a second, when the run is watched
REFUSED = "llm_refused"  # reason: the run cannot be

LEASE_S = 5.0
"""A load process starts requests for so long after it sent the last COUNT that was acknowledged, and no longer."""

LEASE_MARGIN_S = 0.5
"""So much later than that the coordinator gives the share of a silent load process to others."""

WAIT_S = 60.0
"""How long each side waits for the other to come back."""


def identity(names: list[str]) -> str:
    """A short text that is the same where rows and messages have the same fields."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
