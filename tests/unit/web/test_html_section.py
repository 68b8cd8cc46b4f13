"""The section that the extension adds to Locust's HTML report."""

from __future__ import annotations

from pathlib import Path

from llm_users.web.html_section import append_to_file, with_section


def test_the_section_goes_into_the_file_of_this_run_once(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("<html><body><p>&lt;/body&gt; Ü</p></body></html>", encoding="utf-8")
    written_at = file.stat().st_mtime
    section = '<section id="llm-section"></section>'
    assert not append_to_file(str(file), section, not_before=written_at + 1), "it is of an earlier run"
    assert section not in file.read_text(encoding="utf-8")
    for _ in range(2):
        assert append_to_file(str(file), section, not_before=written_at)
    assert file.read_text(encoding="utf-8") == f"<html><body><p>&lt;/body&gt; Ü</p>{section}</body></html>"
    assert not append_to_file(str(tmp_path / "none.html"), section, not_before=0)
    assert with_section("no html at all", section) == f"no html at all{section}"
