"""The verdict as JUnit XML, which CI systems show with their tests, and as a GitHub job summary."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from llm_reports.output_folder import write_file
from llm_reports.sections.decisions import gate_section
from llm_reports.sections.section import plain, section_text
from llm_reports.slo.gate import Gate
from llm_users.verdict import Verdict

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"


@dataclass(frozen=True)
class Case:
    """One check: its location, its name, its verdict, and the reason."""

    place: str
    name: str
    verdict: Verdict
    reason: str


def cases_of(gate: Gate, cause: str = "") -> list[Case]:
    """Return one case per objective and stage; a verdict on the best stage is one case, since other stages may fail.

    ``cause``: why no request was measured, for a gate without judgements.
    """
    if cause and not gate.judgements:
        return [Case("all", gate.objectives.text, Verdict.UNDECIDED, cause)]
    if gate.stage == "best" or not gate.judgements:
        name = f"{gate.objectives.text} in the best stage" if gate.judgements else gate.objectives.text
        return [Case("all", name, gate.verdict, "; ".join(gate.reasons))]
    return [
        Case(f"{one.group.run.name}.{one.label}", one.objective.text, one.verdict, one.explanation)
        for one in gate.judgements
    ]


def junit_xml(name: str, cases: Iterable[Case]) -> str:
    """Return a JUnit test suite: a failed case is a failure, an undecided case is an error."""
    all_cases = list(cases)
    counts = Counter(case.verdict for case in all_cases)
    numbers = {
        "tests": str(len(all_cases)),
        "failures": str(counts[Verdict.FAILED]),
        "errors": str(counts[Verdict.UNDECIDED]),
    }
    suites = ElementTree.Element("testsuites", numbers)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": name, **numbers, "skipped": "0"})
    for case in all_cases:
        element = ElementTree.SubElement(
            suite, "testcase", {"classname": plain(f"{name}.{case.place}"), "name": plain(case.name), "time": "0"}
        )
        tag = {Verdict.PASSED: "system-out", Verdict.FAILED: "failure"}.get(case.verdict, "error")
        passed = case.verdict is Verdict.PASSED
        attributes = {} if passed else {"type": case.verdict.value, "message": plain(case.reason)}
        ElementTree.SubElement(element, tag, attributes).text = plain(case.reason)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def publish_gate(gate: Gate, path: Path | None) -> None:
    """Write a verdict as JUnit XML, and append it to GitHub's job summary if there is one."""
    if path is not None:
        write_junit(path, junit_xml("locust-llm", cases_of(gate)))
    write_job_summary(section_text(gate_section(gate)))


def publish_unmeasured(objectives: str, cause: str, path: Path | None) -> None:
    """Write the cause of a run without requests as a JUnit error, and append it to GitHub's job summary."""
    if path is not None:
        write_junit(path, junit_xml("locust-llm", [Case("all", objectives, Verdict.UNDECIDED, cause)]))
    write_job_summary(f"## Gate: UNDECIDED\n\n- Nothing was measured: {plain(cause)}\n")


def write_junit(path: Path, text: str) -> None:
    """Write the file and create its folder; raises ``InputError`` when the file cannot be written."""
    write_file(path, text, "Specify another file with --junit.")


def write_job_summary(text: str, path: Path | None = None) -> Path | None:
    """Append Markdown to a file, or to GitHub's job summary if there is one, and return the path of the file."""
    target = path or (Path(os.environ[SUMMARY_VARIABLE]) if os.environ.get(SUMMARY_VARIABLE) else None)
    if target is not None:
        ended = text if text.endswith("\n") else text + "\n"
        write_file(target, ended, "Specify another file with --github-summary.", append=True)
    return target
