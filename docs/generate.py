"""Writes options.md, columns.md, simulator.md and the table of prometheus.md from the code, and CONTRIBUTING.md's list.

A test compares them.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llm_users.number_words import duration_text
from llm_users.options.table import GROUPS, OPTIONS, Option
from llm_users.record import CONVERSATION_COLUMNS, REQUEST_COLUMNS, SERVER_METRIC_COLUMNS, STAGE_COLUMNS, Column
from llm_users.server_metric import METRICS
from llm_users.simulator.bedrock.model_routes import TABLE
from llm_users.simulator.spec import FAULTS_BEFORE_ANSWER, FAULTS_IN_ANSWER, Spec
from llm_users.web.prometheus import PROMETHEUS_METRICS

DOCS = Path(__file__).resolve().parent
_MODULES = "<!-- Begin of the list by `make docs`. -->", "<!-- End of the list. -->"
_METRICS_TABLE = "<!-- Begin of the table by `make docs`. -->", "<!-- End of the table. -->"
_PACKAGES = "llm_users", "reports/llm_reports"
_FAULTS_COMMAND = """```sh
llm-bench --headless --llm-simulator ttft=150ms,itl=12ms,fault=reset:0.01+stall@20:0.01,error=429:0.03 \\
    --llm-timeout 5s --llm-sweep 1,8 --csv out/faults --llm-report
```"""
_BEDROCK = """## Bedrock's endpoints

One port plays both endpoints of Bedrock. By default, it serves any model on any of these paths and accepts any
signature. A client uses the URL without `/v1` in place of the endpoint's:

| path | bedrock-runtime | bedrock-mantle |
| --- | --- | --- |
| `/model/MODEL/` with `converse`, `converse-stream`, `invoke`, `invoke-with-response-stream` | yes | |
| `/openai/v1/` with `chat/completions`, `responses`, `models` | yes | yes |
| `/anthropic/v1/messages` | yes | yes |
| `/v1/` with `chat/completions`, `responses`, `models` | | yes |

With `routes=aws`, it serves a model only on Bedrock's routes for it, and answers other requests with AWS's errors, such
as ``model `M` isn't supported on this route``. The service in the scope of the signature (`bedrock` or
`bedrock-mantle`) tells which endpoint a path of both means."""
_BEDROCK_CHECKS = """### Signatures

`sigv4=ACCESS:SECRET` verifies the signature of every request for a model and of the list of models. With
`--llm-simulator`, the tool signs with the placeholder key of `sigv4=simulator:simulator`; another secret shows what a
wrong one does. For a client with your own keys, start `llm-simulator --sigv4 ACCESS:SECRET` alone.

```sh
locust -f locustfiles/bedrock.py --headless --llm-model us.amazon.nova-lite-v1:0 --llm-sweep 1,4 --llm-requests 40 \\
    --llm-simulator ttft=50ms,itl=2ms,sigv4=simulator:simulator,input_tpm=20000
```

The paths of Converse and Invoke answer with status 403 and AWS's exceptions. The other paths answer with the same
messages and status 401, in OpenAI's shape (`invalid_api_key`, `permission_denied_error`) or Anthropic's
(`authentication_error`)."""
_SIGNATURE_ERRORS = [
    ["no credentials", "`MissingAuthenticationTokenException`"],
    ["an Authorization header without one of its parts, no date", "`IncompleteSignatureException`"],
    ["region, service or date of the scope", "`InvalidSignatureException`: `Credential should be scoped to ...`"],
    ["a date more than 5 minutes ago", "`InvalidSignatureException`: `Signature expired: ...`"],
    ["a date more than 5 minutes ahead", "`InvalidSignatureException`: `Signature not yet current: ...`"],
    ["access key", "`UnrecognizedClientException`"],
    [
        "secret, or a request that changed after it was signed",
        "`InvalidSignatureException`, with the text that should have been signed",
    ],
    ["a key in use for longer than `expire_credentials`", "`ExpiredTokenException`"],
    ["a bearer key other than `api_key`", "`AccessDeniedException`"],
]
_QUOTAS = """### Token quotas

`input_tpm=N,output_tpm=N` are the quotas of bedrock-mantle: tokens per minute for each model, and no quota of requests.
A request reserves its input and its cap on output tokens, so a high cap throttles earlier. A quota holds one minute's
tokens at the start and refills evenly. A throttled request gets 429 in the shape of its API. In the log, its `reason`
is `input tokens per minute` or `output tokens per minute`. On AWS, an answer also ends early when the output quota
is used up; here it does not."""
_MADE = "<!-- Made by `make docs` from {source}; edit it there. -->"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def options() -> str:
    text = (
        "You can give each option on the command line, in Locust's web form, in `locust.conf` or its TOML files, and\n"
        "as an environment variable: `--llm-stage-time` is `llm-stage-time` in a file and `LOCUST_LLM_STAGE_TIME` in\n"
        "the environment. Write names in full: an unknown or shortened name ends the command with exit code 2. Write\n"
        "times with the units us, ms, s, m and h: `500ms`, `10s`, `1m30s`. A number without a unit means seconds.\n"
        "Locust's own options (`--host`, `--headless`, `--csv`, `--run-time`, `--stop-timeout`, ...) work together\n"
        "with them."
    )
    parts = []
    for group in GROUPS:
        rows = [
            [
                f"`{option.flag}{_value(option)}`",
                ". ".join(filter(None, (option.help, option.details))),
                f"`{option.default}`" if option.default else "",
            ]
            for option in OPTIONS
            if option.group == group
        ]
        parts += [f"## LLM: {group}", table(["option", "meaning", "default"], rows)]
    return _page("Options", "llm_users/options/table.py", text, *parts)


def _value(option: Option) -> str:
    if option.switch:
        return ""
    return f" {option.metavar}" if option.alone is None else f" [{option.metavar}]"


def columns() -> str:
    def rows(of: Iterable[Column]) -> list[list[str]]:
        return [[f"`{column.name}`", column.unit, column.meaning] for column in of]

    head = ["column", "unit", "meaning"]
    return _page(
        "Columns",
        "llm_users/record.py",
        "An empty cell means that the value was not measured. [metrics.md](metrics.md) defines t0, c1, cK and N.",
        "## `PREFIX_llm_requests.csv`: one row per request",
        table(head, rows(REQUEST_COLUMNS)),
        "## `PREFIX_llm_stages.csv`: one row per stage",
        table(head, rows(STAGE_COLUMNS)),
        "## `PREFIX_llm_conversations.csv`: one row per conversation",
        table(head, rows(CONVERSATION_COLUMNS)),
        "## `PREFIX_llm_server.csv`: one row per stage, server and metric",
        table(head, rows(SERVER_METRIC_COLUMNS)),
        "The metrics, each with the unit that its row has:",
        table(
            ["metric", "kind", "unit", "meaning"],
            [[f"`{name}`", metric.kind, metric.unit, metric.meaning] for name, metric in METRICS.items()],
        ),
    )


def simulator() -> str:
    rows = [
        [f"`{field.metadata['key']}`", field.metadata["meaning"], _default(field)] for field in dataclasses.fields(Spec)
    ]
    return _page(
        "The simulated endpoint",
        "llm_users/simulator/spec.py",
        "`--llm-simulator ttft=150ms,itl=12ms,capacity=8` starts the simulated endpoint together with a run.\n"
        "`llm-simulator --ttft 150ms` starts it alone and prints the base URL for `--host`. It listens on 127.0.0.1,\n"
        "port 8000. `--port 8123` chooses another port, `--port 0` a free one, and `--host 0.0.0.0` opens it to the\n"
        "network.\n\n"
        "Its timing is known: token k leaves at arrival + ttft + k * itl. Write times with their unit: `50us`,\n"
        "`200ms`, `1m30s`.\n\n"
        "It supports the OpenAI API (chat completions, legacy completions, responses), Anthropic's Messages API and\n"
        "AWS Bedrock's APIs, [listed below](#bedrocks-endpoints). `--log FILE` writes when each token left, one JSON\n"
        "line per request.",
        table(["key", "meaning", "default"], rows),
        _BEDROCK,
        table(["models", "bedrock-runtime", "bedrock-mantle"], _model_routes()),
        _BEDROCK_CHECKS,
        table(["what is wrong", "exception"], _SIGNATURE_ERRORS),
        _QUOTAS,
        "## Faults",
        "With `fault=reset:0.01+stall@20:0.01`, the endpoint resets 1 % of the streamed requests before the headers\n"
        "and stops sending after 20 tokens in another 1 %. [Error codes](error-codes.md) lists what the rows contain.\n"
        "To see how your dashboard or gate shows errors:",
        _FAULTS_COMMAND,
        table(
            ["fault", "what happens"],
            [[f"`{kind}`", meaning] for kind, meaning in FAULTS_BEFORE_ANSWER.items()]
            + [[f"`{kind}@TOKENS`", f"after TOKENS tokens: {meaning}"] for kind, meaning in FAULTS_IN_ANSWER.items()],
        ),
        "`make test-system SUITE=crash` runs each fault alone and for 5 % of the requests among 200 streams. For each\n"
        "fault it prints the expected and actual number of rows, the message, and the accuracy of the other streams.",
    )


def _model_routes() -> list[list[str]]:
    """The lines of the table of models and routes. A path without its prefix is the API of Converse and Invoke."""
    names = {"model": "Converse, Invoke"}
    return [
        [
            line.models,
            *(", ".join(names.get(path, f"`{path}`") for path in routes) for routes in (line.runtime, line.mantle)),
        ]
        for line in TABLE
    ]


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if isinstance(value, bool):
        return "`on`" if value else "`off`"
    if value in ("", ()):
        return ""
    # Durations are the fields with seconds in their name.
    if field.name.endswith("_s"):
        return f"`{duration_text(value)}`"
    return f"`{value:g}`" if type(value) is float else f"`{value}`"


def pages() -> dict[str, str]:
    """Content by file name."""
    return {
        "options.md": options(),
        "columns.md": columns(),
        "simulator.md": simulator(),
        "prometheus.md": prometheus(),
        "../CONTRIBUTING.md": contributing(),
    }


def prometheus() -> str:
    """docs/prometheus.md with the table of metrics."""
    page = (DOCS / "prometheus.md").read_text(encoding="utf-8")
    head = ["metric", "type", "labels", "meaning"]
    rows = [
        [f"`{metric.name}`", metric.type, ", ".join(f"`{label}`" for label in metric.labels), metric.meaning]
        for metric in PROMETHEUS_METRICS
    ]
    before, after = (page.index(mark) for mark in _METRICS_TABLE)
    return f"{page[:before]}{_METRICS_TABLE[0]}\n\n{table(head, rows)}\n\n{page[after:]}"


def contributing() -> str:
    """CONTRIBUTING.md with the first sentence of every module's docstring, by folder."""
    page = (DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    parts = []
    folders = sorted({path.parent for root in _PACKAGES for path in (DOCS.parent / root).rglob("*.py")})
    for folder in folders:
        modules = [path for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")]
        if modules:
            lines = [f"- `{path.name}`: {_first_sentence(path)}" for path in modules]
            parts += [f"**{folder.relative_to(DOCS.parent)}/**", "\n".join(lines)]
    before, after = (page.index(mark) for mark in _MODULES)
    return f"{page[:before]}{_MODULES[0]}\n\n" + "\n\n".join(parts) + f"\n\n{page[after:]}"


def _first_sentence(path: Path) -> str:
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())
    return re.split(r"(?<=[a-z)`\"0-9]{2})\.(?= |$)|:$", text)[0].replace("``", "`")


def _page(title: str, source: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", _MADE.format(source=source), *parts]) + "\n"


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
