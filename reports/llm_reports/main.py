"""The command ``llm-report``: it prints tables to stdout and all messages to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llm_reports.errors import InputError

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

    from llm_reports.run import Run

BAD_INPUT = 2
NOT_PASSED = 3
INTERRUPTED = 130
"""128 and the number of SIGINT, as in shells."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0: success; 1: all requests failed; 2: invalid input; 3: zero measured requests, or an SLO gate or comparison that
    failed or is undecided.
    """
    from llm_reports.arguments import parse

    options = parse(sys.argv[1:] if argv is None else argv)
    command: Callable[[Namespace], int] = {"compare": _compare, "leaderboard": _leaderboard}.get(
        options.command, _report
    )
    try:
        return command(options)
    except InputError as error:
        _say(f"error: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED


def _report(options: Namespace) -> int:
    # Import pandas here, so that --help does not load it.
    from llm_reports.content import Questions
    from llm_reports.metrics.costs import load_prices
    from llm_reports.report import ZERO_REQUESTS, checked, report_runs
    from llm_reports.sections.section import plain
    from llm_reports.slo.gate import valid_stage
    from llm_reports.slo.junit import cases_of, junit_xml, write_job_summary, write_junit
    from llm_reports.slo.objectives import parse_objectives

    formats = checked([*options.format.split(","), options.plots or ""])
    objectives = parse_objectives(options.slo) if options.slo else None
    if options.junit and objectives is None:
        raise InputError("--junit writes a verdict and requires objectives; set them with --slo")
    prices = load_prices(options.prices) if options.prices else None
    questions = Questions(objectives, valid_stage(options.slo_stage), prices, options.peak)
    runs = _loaded(options)
    report = report_runs(
        runs, out=options.out, formats=formats, count_connect=options.count_connect, questions=questions
    )
    _print(report.text)
    for warning in report.warnings:
        _say(f"warning: {warning}")
    _wrote(report.files)
    if report.gate is not None and options.junit:
        write_junit(options.junit, junit_xml("llm-report", cases_of(report.gate, report.problem)))
    if report.gate is not None or options.github_summary:
        error = (
            f"\n**Error**: {plain(report.problem)}\n" if report.exit_code == ZERO_REQUESTS and report.problem else ""
        )
        write_job_summary(report.markdown + error, options.github_summary)
    if report.problem:
        _say(f"error: {report.problem}")
    return report.exit_code


def _compare(options: Namespace) -> int:
    from llm_reports.compare.comparison import compare_runs
    from llm_reports.html.command_files import comparison_files
    from llm_reports.markdown.report import comparison_text
    from llm_reports.output_folder import write_files
    from llm_reports.sections.comparison import cases, verdict
    from llm_reports.sections.section import plain
    from llm_reports.slo.junit import Case, junit_xml, write_job_summary, write_junit
    from llm_users.verdict import Verdict

    _check_out(options)
    runs, against = _sides(options)
    try:
        comparison = compare_runs(
            runs, against=against, threshold=options.threshold, on=options.on, count_connect=options.count_connect
        )
    except InputError as error:  # the pipeline shows the cause where it shows the verdict
        if options.junit:
            case = Case("all", "comparison", Verdict.UNDECIDED, str(error))
            write_junit(options.junit, junit_xml("llm-report compare", [case]))
        write_job_summary(f"**Error**: {plain(str(error))}\n", options.github_summary)
        raise
    text = comparison_text(comparison)
    _print(text)
    if options.out is not None:
        _wrote(write_files(comparison_files(comparison, options.plots), options.out))
    if options.junit:
        write_junit(options.junit, junit_xml("llm-report compare", cases(comparison)))
    write_job_summary(text, options.github_summary)
    if not comparison.passed:
        _say(f"error: {verdict(comparison).replace('**', '')}")
    return 0 if comparison.passed else NOT_PASSED


def _leaderboard(options: Namespace) -> int:
    from llm_reports.compare.leaderboard import leaderboard, without_requests
    from llm_reports.html.command_files import leaderboard_files
    from llm_reports.llmperf.tables import with_new_notes
    from llm_reports.markdown.table import to_markdown
    from llm_reports.output_folder import write_files
    from llm_reports.slo.junit import write_job_summary

    _check_out(options)
    runs = _loaded(options)
    tables = leaderboard(
        runs, concurrency=options.concurrency, rate_per_s=options.rate, count_connect=options.count_connect
    )
    text = "\n".join(to_markdown(*noted) for noted in with_new_notes(tables))
    _print(text)
    if options.out is not None:
        _wrote(write_files(leaderboard_files(tables, options.plots), options.out))
    if options.github_summary:
        write_job_summary(text, options.github_summary)
    missing = without_requests(runs)
    for problem in missing:
        _say(f"error: {problem}")
    return NOT_PASSED if missing else 0


def _check_out(options: Namespace) -> None:
    if options.plots and options.out is None:
        raise InputError(f"--plots {options.plots} requires an output folder, for example --out out/{options.command}")


def _sides(options: Namespace) -> tuple[list[Run], list[Run]]:
    """Load the runs before and after --against. They are loaded together, so that their names differ."""
    from llm_reports.input.loader import find, split_name

    after_option = {path.resolve() for given in options.against for path in find(split_name(given)[1])}
    on_both_sides = after_option & {path.resolve() for given in options.inputs for path in find(split_name(given)[1])}
    if on_both_sides:
        raise InputError(f"--against: {min(on_both_sides)} is on both sides. Specify each run on one side only.")
    runs = _loaded(options, options.against)
    return (
        [run for run in runs if run.source.resolve() not in after_option],
        [run for run in runs if run.source.resolve() in after_option],
    )


def _loaded(options: Namespace, more: Sequence[str] = ()) -> list[Run]:
    from llm_reports.input.loader import load_all

    runs = load_all([*options.inputs, *more], framework=options.framework, model=options.model)
    for run in runs:
        for warning in run.warnings if options.command else ():
            _say(f"warning: {warning}")
    return runs


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, a pager) closed the pipe. Without this, Python reports a second error at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _wrote(files: Sequence[Path]) -> None:
    if files:
        _say(f"wrote {', '.join(map(str, files))}")


def _say(text: str) -> None:
    print(f"llm-report: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
