"""Command-line options of ``llm-report`` and its subcommands. This module does not load pandas."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from llm_reports.slo.objectives import EXAMPLE
from llm_users._version import __version__

_EXIT_CODES = (
    "Exit codes: 0 success; 1 every measured request failed; 2 options or input that cannot be used, or output that "
    "cannot be written; 3 an objective or a comparison failed or is undecided, or a run has no measured requests; "
    "130 Ctrl-C. docs/exit-codes.md has the codes of all commands."
)
_COMMANDS = ("compare", "leaderboard")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the options into a namespace; ``command`` is "" for the report itself."""
    command = argv[0] if argv and argv[0] in _COMMANDS else ""
    parser = {"compare": _compare, "leaderboard": _leaderboard}.get(command, _report)()
    options = parser.parse_args(argv[1:] if command else argv)
    options.command = command
    return options


def _report() -> argparse.ArgumentParser:
    parser = _parser(
        "llm-report",
        "Print LLMPerf's tables for the rows of a run or for LLMPerf's own files. The tables go to stdout. "
        "See also: llm-report compare --help, llm-report leaderboard --help.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="output folder (default: PREFIX_report for the rows of a run; no files for other inputs)",
    )
    parser.add_argument(
        "--format",
        default="md,csv",
        metavar="LIST",
        help="files to write (default: %(default)s): md, csv, json (LLMPerf's two files), llmperf (LLMPerf's console "
        "output, printed to stdout instead of the tables, or after them with md,llmperf), html (a page with figures), "
        "summary (summary.csv as JSON), parquet (requires the extra parquet)",
    )
    parser.add_argument(
        "--plots",
        choices=("svg", "png"),
        help="also write the figures of the page as image files (requires the extra plots)",
    )
    parser.add_argument(
        "--slo",
        metavar="EXPR",
        help="report attainment, goodput and the highest load that meets these objectives; exit with code 3 unless "
        f"the 95 %% interval of every objective is within its limit. Example: {EXAMPLE}",
    )
    parser.add_argument(
        "--slo-stage",
        default="all",
        metavar="all|best|N",
        help="stages that --slo evaluates: all, the best one, or stage number N (default: %(default)s)",
    )
    parser.add_argument(
        "--peak",
        type=_rate,
        metavar="RATE",
        help="report how many replicas serve this peak rate (requests/s), from load searches or, with --slo, from the "
        "rates of all runs together",
    )
    prices = "report costs with this price file (JSON or TOML), or with LiteLLM's model_prices_and_context_window.json"
    parser.add_argument("--prices", type=Path, metavar="FILE", help=prices)
    _add_verdict_files(parser)
    return parser


def _compare() -> argparse.ArgumentParser:
    parser = _parser(
        "llm-report compare",
        "Compare each run with the first one, or a group of runs with another group (--against). Per stage and "
        "figure, the table shows the difference, the relative change, their intervals, and whether the difference "
        "is significant.",
    )
    parser.add_argument(
        "--against",
        nargs="+",
        default=[],
        metavar="INPUT",
        help="compare all runs before this option with all runs after it. The run is then the statistical unit, so "
        "the intervals include the variation between runs; measure three or more runs per side",
    )
    parser.add_argument(
        "--threshold",
        type=_share,
        metavar="SHARE",
        help="exit with code 3 unless the 95 %% intervals show that the medians, the error ratio and the system "
        "throughput are not worse by more than this share (5%% or 0.05), or if the interval of any figure shows that "
        "it is worse by more",
    )
    parser.add_argument(
        "--on",
        metavar="LIST",
        help='figures that --threshold applies to, with their names in the table: "ttft_s median,error_ratio". A '
        "metric or a figure alone (ttft_s, p95) selects all of its lines",
    )
    _add_image_options(parser, "comparison.md and comparison.html, with the curves of all runs overlaid")
    _add_verdict_files(parser)
    return parser


def _leaderboard() -> argparse.ArgumentParser:
    parser = _parser(
        "llm-report leaderboard", "Print LLMPerf's two tables for many endpoints, each with the best endpoint first."
    )
    load = parser.add_mutually_exclusive_group()
    load.add_argument("--concurrency", type=int, metavar="N", help="use only the stages with this concurrency")
    load.add_argument(
        "--rate", type=_rate, metavar="R", help="use only the stages with this rate (requests/s, open loop)"
    )
    _add_image_options(parser, "leaderboard.md and leaderboard.html, with a bar chart of each table")
    parser.add_argument(
        "--github-summary", type=Path, metavar="FILE", help="append the tables as Markdown to this file"
    )
    return parser


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    # Abbreviations are off, so that a misspelled option does not select a different one.
    parser = argparse.ArgumentParser(prog=name, description=description, epilog=_EXIT_CODES, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="the PREFIX of a run (as in --csv PREFIX), a rows file, an LLMPerf *_individual_responses.json, a folder, "
        "or - to read rows (CSV) or LLMPerf's JSON from standard input; files may be compressed (.gz). NAME=INPUT "
        "names the framework, and NAME@5=FILE also the concurrency of an LLMPerf file that does not state it",
    )
    parser.add_argument("--framework", metavar="NAME", help="framework name to print, overrides the name in the files")
    parser.add_argument("--model", metavar="NAME", help="model name to print, overrides the name in the files")
    parser.add_argument(
        "--count-connect", action="store_true", help="add the connection time to TTFT and latency, as LLMPerf does"
    )
    return parser


def _add_image_options(parser: argparse.ArgumentParser, files: str) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"write {files} to this folder (default: no files)")
    parser.add_argument(
        "--plots",
        choices=("svg", "png"),
        help="also write the figures as image files, which comparison.md or leaderboard.md show (requires --out and "
        "the extra plots)",
    )


def _add_verdict_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the verdict as JUnit XML")
    parser.add_argument(
        "--github-summary",
        type=Path,
        metavar="FILE",
        help="append the printed text to this file (default for a verdict: GitHub's job summary, if there is one)",
    )


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid rate; write requests per second, for example 5")
    return value


def _share(text: str) -> float:
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid share; write for example 5% or 0.05")
    return value
