"""The command ``llm-report``: options in, tables to stdout, everything else that has to be said to stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from reports.errors import InputError

BAD_INPUT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 fine, 1 all requests failed, 2 bad input, 3 zero requests."""
    options = _parser().parse_args(argv)
    # pandas loads here and not for --help
    from reports.formats import checked
    from reports.inputs import load_all
    from reports.report import report_runs

    try:
        formats = checked(options.format.split(","))
        runs = [run.renamed(framework=options.framework, model=options.model) for run in load_all(options.inputs)]
        report = report_runs(runs, out=options.out, formats=formats, count_connect=options.count_connect)
    except InputError as error:
        _say(f"error: {error}")
        return BAD_INPUT
    _print(report.text)
    for warning in report.warnings:
        _say(f"warning: {warning}")
    if report.files:
        _say(f"wrote {', '.join(map(str, report.files))}")
    if report.problem:
        _say(f"error: {report.problem}")
    return report.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llm-report",
        description="LLMPerf's tables from the rows of a run, or from LLMPerf's own files. Tables go to stdout.",
        epilog="Exit codes: 0 fine, 1 every request failed, 2 bad options or input, 3 a run without measured requests.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="a run's PREFIX (as in --csv PREFIX), a rows file, an LLMPerf *_individual_responses.json, or a folder",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the files (default: PREFIX_report for runs, else no files)"
    )
    parser.add_argument(
        "--format",
        default="md,csv",
        metavar="LIST",
        help="files to write (default: %(default)s): md, csv, json (LLMPerf's two files), llmperf (its print-out, "
        "which then goes to stdout instead of the tables, or after them with md,llmperf)",
    )
    parser.add_argument("--framework", metavar="NAME", help="framework to print, whatever the files say")
    parser.add_argument("--model", metavar="NAME", help="model to print, whatever the files say")
    parser.add_argument(
        "--count-connect", action="store_true", help="add the time of connecting to TTFT and latency, as LLMPerf does"
    )
    return parser


def _print(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, a pager) has seen enough. Python would complain once more while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    print(f"llm-report: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
