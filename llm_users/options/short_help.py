"""The short help of ``llm-bench``: the options that most users need, and examples. It does not load Locust."""

from __future__ import annotations

from llm_users.options.table import OPTIONS

HELP_ALL = "--help-all"
USAGE = "Usage: llm-bench [options] [UserClass ...]"

_OF_LOCUST = (
    ("--host URL", "Base URL of the API: http://127.0.0.1:8000/v1"),
    ("--headless", "Start at once, without the web page"),
    ("--csv PREFIX", "Where the files of the run go (default: out/TIME/run)"),
)
EXAMPLES = """\
Examples:

  llm-bench --headless --llm-simulator --llm-output-tokens 20,5
        Try it without a server or a key: 1, 2, 4 and 8 users, one after another

  llm-bench --headless --host http://127.0.0.1:8000/v1 \\
      --llm-sweep 1,8,32 --llm-requests 200 --llm-report
        Measure your server, and write a report with figures

  OPENAI_API_KEY=... llm-bench --headless --host https://api.openai.com/v1 \\
      --llm-model gpt-4.1-mini --llm-sweep 4 --llm-slo 'ttft_p95<1,errors<1%'
        Gate a pipeline: exit code 3 unless the objectives are met"""
COMMANDS = (
    ("llm-bench quick [URL]", "Measure a server in about a minute"),
    ("llm-bench calibrate", "Find how many streams this machine can measure"),
    (f"llm-bench {HELP_ALL}", "Show every option, those of Locust too"),
    ("llm-report --help", "Make reports from the files of a run, compare runs"),
)


def short_help() -> str:
    """Return the text of ``llm-bench --help``. It fits 80 columns."""
    ours = tuple(
        (f"{option.flag} {'' if option.switch else option.metavar}".rstrip(), option.help_line)
        for option in OPTIONS
        if option.common
    )
    return "\n".join(
        [
            USAGE,
            "",
            "Load-test an LLM API. Without --headless, the load is controlled on a web page.",
            "",
            "The options that most runs need:",
            *_listed(_OF_LOCUST + ours),
            "",
            EXAMPLES,
            "",
            "More:",
            *_listed(COMMANDS),
        ]
    )


def _listed(entries: tuple[tuple[str, str], ...]) -> list[str]:
    """Return the entries in two columns, with the text of a long name on the next line, as argparse does."""
    lines = []
    for name, text in entries:
        lines += [f"  {name:<22}{text}"] if len(name) < 22 else [f"  {name}", f"{'':24}{text}"]
    return lines
