"""What can be typed after ``llm-report``: options of the report itself and of its subcommands. Loads no pandas."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from llm_reports.slo.objectives import EXAMPLE

_EXIT_CODES = (
    "Exit codes: 0 fine, 1 every request failed, 2 bad options or input, 3 a run without measured requests, "
    "objectives that are not met or cannot be decided, or a comparison that failed or is undecided."
)
_COMMANDS = ("compare", "leaderboard")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options as a namespace; ``command`` is "" for the report itself."""
    command = argv[0] if argv and argv[0] in _COMMANDS else ""
    parser = {"compare": _compare, "leaderboard": _leaderboard}.get(command, _report)()
    options = parser.parse_args(argv[1:] if command else argv)
    options.command = command
    return options


def _report() -> argparse.ArgumentParser:
    parser = _parser(
        "llm-report",
        "LLMPerf's tables from the rows of a run, or from LLMPerf's own files. Tables go to stdout. "
        "See also: llm-report compare --help, llm-report leaderboard --help.",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the files (default: PREFIX_report for runs, else no files)"
    )
    parser.add_argument(
        "--format",
        default="md,csv",
        metavar="LIST",
        help="files to write (default: %(default)s): md, csv, json (LLMPerf's two files), llmperf (its print-out, "
        "which then goes to stdout instead of the tables, or after them with md,llmperf), html (a page with figures), "
        "summary (summary.csv as JSON), openmetrics, parquet (needs the extra of that name)",
    )
    parser.add_argument(
        "--plots",
        choices=("svg", "png"),
        help="write the figures of the page as image files, too (png needs the extra plots)",
    )
    parser.add_argument(
        "--slo",
        metavar="EXPR",
        help="report attainment, goodput and the highest load for these objectives, and exit with code 3 unless the "
        f"95 %% interval of every objective is within its limit: {EXAMPLE}",
    )
    parser.add_argument(
        "--slo-stage",
        default="all",
        metavar="all|best|N",
        help="stages that --slo judges: all, the best one, or the one with number N (default: %(default)s)",
    )
    parser.add_argument("--prices", type=Path, metavar="FILE", help="price file (JSON or TOML): report costs")
    _add_verdict_files(parser)
    return parser


def _compare() -> argparse.ArgumentParser:
    parser = _parser(
        "llm-report compare",
        "Compare runs with the first one, or several runs with several (--against): per stage and figure the "
        "difference, the change, their intervals, and whether it is more than chance.",
    )
    parser.add_argument(
        "--against",
        nargs="+",
        default=[],
        metavar="INPUT",
        help="compare the runs before this option, taken together, with these: the run is then the unit, and what "
        "changes from run to run is in the intervals; measure three or more per side",
    )
    parser.add_argument(
        "--threshold",
        type=_share,
        metavar="SHARE",
        help="exit with 3 unless the medians, the share of errors and the system's throughput are surely not worse by "
        "more than this (5%% or 0.05), or when any figure is surely worse by more",
    )
    parser.add_argument(
        "--on",
        metavar="LIST",
        help='figures that --threshold decides on, as the table calls them: "ttft_s median,error_ratio". A metric or a '
        "figure alone (ttft_s, p95) stands for all of its lines",
    )
    _add_pictures(parser, "comparison.md and comparison.html, with the curves of all runs overlaid")
    _add_verdict_files(parser)
    return parser


def _leaderboard() -> argparse.ArgumentParser:
    parser = _parser(
        "llm-report leaderboard", "LLMPerf's two tables over many endpoints, the best one of each table first."
    )
    level = parser.add_mutually_exclusive_group()
    level.add_argument("--concurrency", type=int, metavar="N", help="only the stages of this concurrency")
    level.add_argument("--rate", type=_rate, metavar="R", help="only the stages of this rate (requests/s, open loop)")
    _add_pictures(parser, "leaderboard.md and leaderboard.html, with a bar chart of each table")
    parser.add_argument(
        "--github-summary", type=Path, metavar="FILE", help="append the tables as Markdown to this file"
    )
    return parser


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    # Without shortened names, a misspelled option cannot become another one.
    parser = argparse.ArgumentParser(prog=name, description=description, epilog=_EXIT_CODES, allow_abbrev=False)
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="a run's PREFIX (as in --csv PREFIX), a rows file, an LLMPerf *_individual_responses.json, a folder, or - "
        "for rows (CSV) or LLMPerf's JSON from standard input; files may be compressed (.gz)",
    )
    parser.add_argument("--framework", metavar="NAME", help="framework to print, whatever the files say")
    parser.add_argument("--model", metavar="NAME", help="model to print, whatever the files say")
    parser.add_argument(
        "--count-connect", action="store_true", help="add the time of connecting to TTFT and latency, as LLMPerf does"
    )
    return parser


def _add_pictures(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"write {what} (default: no files)")
    parser.add_argument(
        "--plots",
        choices=("svg", "png"),
        help="write the figures as image files, too, for comparison.md or leaderboard.md to show (needs --out; png "
        "needs the extra plots)",
    )


def _add_verdict_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the verdict as JUnit XML")
    parser.add_argument(
        "--github-summary",
        type=Path,
        metavar="FILE",
        help="append what is printed to this file; a verdict goes to GitHub's job summary by itself",
    )


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate; write the requests per second, for example 5")
    return value


def _share(text: str) -> float:
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share; write 5% or 0.05")
    return value
