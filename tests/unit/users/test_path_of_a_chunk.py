"""From the socket to the row of a request: at most twelve files pass a chunk on."""

from __future__ import annotations

from pathlib import Path

from tests.unit.users.path_of_a_chunk import lines, trace

MOST_FILES = 12


def test_a_chunk_passes_through_at_most_twelve_files_from_the_socket_to_its_row(tmp_path: Path) -> None:
    for attempt in range(3):
        (folder := tmp_path / str(attempt)).mkdir()
        made = trace(folder)
        if "SseResponseStream.take_texts" not in (call.function for call in made.calls):
            break  # otherwise, on a busy machine, the chunk was processed together with the later ones
    path = {Path(file).name: functions for file, functions in made.path().items()}
    assert len(path) <= MOST_FILES, "\n".join(lines(made))

    # The trace sees the whole way: the read, the stamps, the framing, the events, the chunks, the record and the row.
    assert made.ttft_s is not None
    assert {"connection.py", "clock.py", "exchange.py", "sse.py", "events.py", "chunks.py"} <= set(path)
    assert {"Request._read", "Request._fill_times", "_publish"} <= set(path["request.py"])
    assert "RunFiles.write_request" in path["files.py"]
