"""From the row of a request to the cell of a table that shows it: at most ten files pass the value on."""

from __future__ import annotations

from pathlib import Path

from tests.unit.reports.path_of_a_cell import CARRIERS, CELL, lines, trace

MOST_FILES = 10


def test_a_value_passes_through_at_most_ten_files_from_its_row_to_its_cell(tmp_path: Path) -> None:
    made = trace(tmp_path)
    path = {Path(file).name for file in made.path()}
    assert len(path) <= MOST_FILES, "\n".join(lines(made))

    # The trace sees the whole way: every class that carries the value, and the files that read, compute and print it.
    assert made.printed.count(CELL) == 1
    assert made.carriers == set(CARRIERS)
    assert {"rows.py", "groups.py", "summary.py", "tables.py", "section.py", "main.py"} <= path
