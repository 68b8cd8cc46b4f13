"""More rows than the master should take: workers keep them and the master has them all at the end of the stage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.crash.workers.nodes import ANSWERS, Nodes, accounts, agree

pytestmark = pytest.mark.slow

FEW_ROWS = str(Path(__file__).parents[1] / "few_rows_locustfile.py")


@pytest.mark.parametrize("shared", [True, False])
def test_rows_that_are_held_back_are_there_at_the_end_of_the_stage(nodes: Nodes, tmp_path: Path, shared: bool) -> None:
    spools = tmp_path / "out" / "run_llm_spool"
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    if not shared:  # as on another machine: the workers do not find the master's folder
        spools.parent.mkdir()
        spools.write_text("")
    nodes.start(2, "--llm-sweep", "8,8", "--llm-requests", "150", *ANSWERS,
               locustfile=FEW_ROWS, env={"TMPDIR": str(temporary)})  # fmt: skip
    done = nodes.finish(40)
    assert done.code == 0, done.err
    assert [stage["requests_measured"] for stage in done.rows("stages")] == ["150", "150"]
    assert sum("its rows stay in its spool" in note for note in done.manifest["notes"]) == 2
    recovered = sum(account["recovered"] for account in accounts(done).values())
    assert (recovered > 100) is shared
    agree(nodes, done)
    if shared:
        assert not spools.exists(), "nothing is left of a fine run"
    assert not list(temporary.glob("locust-llm-*"))
