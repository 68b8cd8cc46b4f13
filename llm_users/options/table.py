"""Every command-line option of the extension, and the frozen object that they become.

Options are declared once here; Locust shows them on its command line, in its web form, in its configuration files and
as LOCUST_LLM_... variables. Values stay text until ``Options.parse``, so edits in the web form keep their type.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from llm_users.distributions import ARRIVAL_GAPS, LENGTHS, THINK_TIMES, TURNS, ArrivalGap, Distribution
from llm_users.number_words import parse_duration
from llm_users.options.parsers import (
    OptionError,
    amount,
    arrivals,
    block_size,
    cancel,
    existing_file,
    factor,
    header_from_environment,
    invoke_format,
    json_object,
    lengths,
    load_prices,
    pair,
    positive,
    prompts_file,
    rates,
    ratio,
    run_key,
    stage_to_judge,
    sweep,
    targets,
    think_time,
    trace_file,
    turns,
    warmup,
    web_origin,
    whole,
)
from llm_users.options.rules import check_trace, rules
from llm_users.options.targets import Target
from llm_users.prices import Prices
from llm_users.prompts import BLOCK_TOKENS, UNITS, Pictures, Prefixes, parse_mix, parse_window

__all__ = [
    "APIS",
    "DEFAULT_REQUESTS",
    "TRANSPORTS",
    "OptionError",
    "Options",
    "as_text",
    "load_prices",
    "register",
    "sweep",
]

APIS = ("chat", "completions", "responses", "messages", "converse", "invoke")
TRANSPORTS = ("fast", "sdk")
OVERFLOWS = ("wait", "drop")
STAGING = ("llm_sweep", "llm_rate", "llm_find", "llm_trace")
"""Options, as the web form calls them, that make a run one of stages."""
DEFAULT_REQUESTS = 100
DEFAULT_RAMP_S = 0.5
REPEATED_RUN_KEY = "repeat"
"""The run key of all runs with ``--llm-repeat-prompts``."""
FIND_MOST_USERS = 1024
"""Where a search of ``--llm-find`` ends when nobody says so."""


@dataclass(frozen=True, slots=True)
class _Option:
    flag: str
    help: str
    metavar: str = "VALUE"
    default: str | None = None
    check: Callable[[str], Any] = str
    choices: tuple[str, ...] | None = None
    many: bool = False
    switch: bool = False
    reads_local: bool = False
    """The value names files or environment variables of the machine, or says where their content may be sent."""

    @property
    def dest(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")


_OPTIONS = (
    _Option("--llm-model", "Model to ask. Default: the only one that the server lists", "NAME"),
    _Option("--llm-api", "API to call. Default: what the locustfile says", choices=APIS),
    _Option("--llm-sweep", "Concurrency of each stage, for example 1,2,4,8", "LIST", check=sweep),
    _Option("--llm-rate", "Open loop: requests per second of each stage, for example 5,10,20", "LIST", check=rates),
    _Option("--llm-arrivals", "Distribution of the gaps between requests: constant, poisson or gamma:CV",
            "DISTRIBUTION", "poisson",
            arrivals),
    _Option("--llm-trace", "Open loop: replay recorded traffic, a Mooncake-, BurstGPT-, Azure- or Vidur-shaped file",
            "FILE", check=trace_file, reads_local=True),
    _Option("--llm-trace-speed", "Replay a trace so many times as fast", "FACTOR", "1", factor),
    _Option("--llm-trace-window", "Part of a trace, in its own time: 0-600, 10m-20m", "FROM-TO", check=parse_window),
    _Option("--llm-trace-unit", "Unit of a trace's times. Default: inferred from the times; a note says how",
            choices=tuple(UNITS)),
    _Option("--llm-trace-block-size", "Tokens that one of a trace's hash_ids stands for", "TOKENS", str(BLOCK_TOKENS),
            block_size),
    _Option("--llm-max-in-flight", "Open loop: at most so many requests at a time, over all workers", "N",
            check=positive),
    _Option("--llm-overflow", "What becomes of a request above --llm-max-in-flight: it waits for its turn, and the "
            "wait counts, or it is dropped and its row says so", default="wait", choices=OVERFLOWS),
    _Option("--llm-find", "Search for the highest load that meets these objectives: ttft_p95<0.5,tpot_p95<0.05. "
            "--llm-sweep LOW,HIGH or --llm-rate LOW,HIGH says where. Its stages have at least --llm-requests and "
            "last at least 30 s, ten times the largest latency limit, or --llm-stage-time", "EXPR"),
    _Option("--llm-find-stages", "Stages that the search may take", "N", "12", positive),
    _Option("--llm-requests", "Measured requests per stage, over all workers (100 in a sweep)", "N", check=positive),
    _Option("--llm-stage-time", "Measure each stage for this time (or until N requests, whichever comes first)", "TIME",
            check=parse_duration),
    _Option("--llm-warmup", "Before measuring: N requests per user, or a time (10s); 0: none", "N|TIME", "1", warmup),
    _Option("--llm-ramp", "A stage's users start evenly over this time. Default: 0.5s; without a warm-up 0 (at once)",
            "TIME", check=parse_duration),
    _Option("--llm-stop-on-errors", "End the sweep when more than this share of a stage fails", "SHARE", check=ratio),
    _Option("--llm-input-tokens", "Prompt length in tokens: normal, or another distribution: "
            "lognormal:MEAN,SD, uniform:LOW,HIGH, exp:MEAN, fixed:N", "MEAN[,SD]|NAME:NUMBERS", "550,150", lengths),
    _Option("--llm-output-tokens", "Cap on output tokens, written in the same way", "MEAN[,SD]|NAME:NUMBERS", "150,80",
            lengths),
    _Option("--llm-lengths", "Mix of lengths in place of both: 80:500/100,20:4000/500", "WEIGHT:INPUT/OUTPUT,...",
            check=parse_mix),
    _Option("--llm-seed", "Seed of lengths, caps and order; the texts of generated prompts also differ from run to run",
            "N", "11111", whole),
    _Option("--llm-repeat-prompts", "Send the same generated prompts in every run with this seed; the server's prefix "
            "cache may hold them", switch=True),
    _Option("--llm-run-key", "Send the generated prompts of the run that has this run_key in its manifest", "TEXT",
            check=run_key),
    _Option("--llm-prompt", "One fixed prompt for every request", "TEXT"),
    _Option("--llm-prompts", "Data set of prompts: JSONL, CSV, Parquet, text with one prompt per line, or "
            "hf:ORG/NAME[:SPLIT]", "FILE[:COLUMN]", check=prompts_file, reads_local=True),
    _Option("--llm-prompts-order", "Order of a data set: shuffled by the seed, or as in the file",
            default="shuffled", choices=("shuffled", "file")),
    _Option("--llm-prefix", "Begin prompts with one of COUNT shared texts of so many tokens: 1000x8", "TOKENSxCOUNT",
            check=Prefixes.parse),
    _Option("--llm-cache-bust", "Begin every prompt differently, also those with a shared or given text, so that no "
            "prefix cache holds any of it", switch=True),
    _Option("--llm-images", "Put images into every prompt: N synthetic ones, or those of a folder in turn",
            "N[xWxH]|[N:]FOLDER", check=Pictures.parse, reads_local=True),
    _Option("--llm-conversations", "Conversations for ConversationUser: JSON lines with \"turns\" or \"messages\", or "
            "ShareGPT's. Default: made ones", "FILE", check=existing_file, reads_local=True),
    _Option("--llm-turns", "Turns of a made conversation, written like --llm-input-tokens",
            "MEAN[,SD]|NAME:NUMBERS", "3,1", turns),
    _Option("--llm-think-time", "Pause before each further turn of a conversation: 1s, exp:2s, 2s,0.5s",
            "TIME[,SD]|NAME:TIMES", "1s", think_time),
    _Option("--llm-cancel", "Clients that hang up: give up this share of requests so long after they were sent: "
            "0.1:2s", "SHARE:TIME", check=cancel),
    _Option("--llm-targets", "Several models or endpoints, each with its share of the requests: "
            "small=3,large@https://HOST/v1=1", "MODEL[@URL][=WEIGHT],...", check=targets),
    _Option("--llm-tokenizer", "Tokenizer: a folder, a tokenizer.json or a hub id. Default: a packaged one", "PATH|ID",
            reads_local=True),
    _Option("--llm-extra-body", 'Extra fields of each request, as JSON: {"temperature": 0}', "JSON", check=json_object),
    _Option("--llm-header-env", "Extra header whose value is taken from an environment variable (repeatable)",
            "NAME=VAR", check=header_from_environment, many=True, reads_local=True),
    _Option("--llm-timeout", "Deadline of one request", "TIME", "600s", parse_duration),
    _Option("--llm-transport", "fast: kernel receive stamps; sdk: the SDK's own HTTP stack, for comparison",
            default="fast", choices=TRANSPORTS),
    _Option("--llm-new-connections", "Open a connection for every request, as LLMPerf does", switch=True),
    _Option("--llm-redirect-to", "Another origin to which the endpoint may redirect requests; prompts and keys are "
            "sent there too (repeatable). Default: redirects to other origins are errors", "ORIGIN", check=web_origin,
            many=True, reads_local=True),
    _Option("--llm-cookies", "Keep cookies, in a jar for each user. Default: none are sent back", switch=True),
    _Option("--llm-client-cert", "Client certificate: a PEM file, its key inside or in a second file. "
            "Default: SSL_CLIENT_CERT and SSL_CLIENT_KEY", "PATH[,KEY]", reads_local=True),
    _Option("--llm-insecure", "Do not verify the server's certificate. Every output says so", switch=True),
    _Option("--llm-proxy-loopback", "Send requests to this machine through HTTP_PROXY or HTTPS_PROXY too", switch=True),
    _Option("--llm-region", "AWS region of Bedrock. Default: AWS_REGION, AWS_DEFAULT_REGION, the profile's", "NAME"),
    _Option("--llm-invoke-format", "Bedrock's invoke: name of a family, or a JSON file with body and paths. "
            "Default: what the model id says", "NAME|FILE", check=invoke_format, reads_local=True),
    _Option("--llm-prices", "File of prices per million tokens, to say what a stage costs", "FILE",
            check=load_prices, reads_local=True),
    _Option("--llm-budget", "End the run before it has cost more than this (needs --llm-prices)", "AMOUNT",
            check=amount),
    _Option("--llm-offsets", "Also write the arrival of every chunk", switch=True),
    _Option("--llm-simulator", "Start the simulated endpoint beside the run and use it: ttft=200ms,itl=20ms,capacity=8",
            "SPEC"),
    _Option("--llm-framework", "Name of the serving framework in tables and files", "NAME"),
    _Option("--llm-metadata", "Note for the files (repeatable)", "KEY=VALUE", check=pair, many=True),
    _Option("--llm-slo", "Exit with 3 unless these objectives are met beyond doubt: ttft_p95<0.5,errors<0.01", "EXPR"),
    _Option("--llm-slo-stage", "Stages that --llm-slo judges: all, the best one, or the one with this number",
            "all|best|N", "all", stage_to_judge),
    _Option("--llm-web-origin", "Another origin that may control the web interface, such as a reverse proxy's "
            "(repeatable)", "ORIGIN", check=web_origin, many=True),
    _Option("--llm-report", "Write the report folder at the end: the tables, and a page with figures", switch=True),
)  # fmt: skip


READS_LOCAL = tuple(option.dest for option in _OPTIONS if option.reads_local)
"""Options, as the web form calls them, whose values name files or environment variables."""


def register(parser: Any) -> None:
    """Add the options to Locust's parser. (Argument groups would never reach the web form.)"""
    for option in _OPTIONS:
        variable = "LOCUST_" + option.dest.upper()
        if option.switch:
            parser.add_argument(option.flag, help=option.help, action="store_true", default=False, env_var=variable)
        elif option.flag == "--llm-simulator":
            parser.add_argument(option.flag, help=option.help, metavar=option.metavar, nargs="?", const="default",
                                default=None, env_var=variable)  # fmt: skip
        elif option.many:
            # No empty list: Locust takes one for a list of integers when its form is sent.
            parser.add_argument(option.flag, help=option.help, metavar=option.metavar, type=_checked(option),
                                action="append", default=None, env_var=variable)  # fmt: skip
        elif option.choices:
            # The web form sends the first choice of an option without a default: it must stand for "not given".
            choices = option.choices if option.default else ("", *option.choices)
            parser.add_argument(option.flag, help=option.help, choices=choices, default=option.default,
                                metavar="{" + ",".join(option.choices) + "}", env_var=variable)  # fmt: skip
        else:
            parser.add_argument(option.flag, help=option.help, metavar=option.metavar, type=_checked(option),
                                default=option.default, env_var=variable)  # fmt: skip


def _checked(option: _Option) -> Callable[[str], str]:
    """The option's value as it was written, once it is known to be usable."""

    def check(text: str) -> str:
        if text != "":  # the web form and configuration files send empty fields
            try:
                option.check(text)
            except ValueError as error:
                raise argparse.ArgumentTypeError(str(error)) from None  # argparse names the option
        return text

    check.__name__ = option.metavar
    return check


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one run, read once at its start."""

    model: str | None = None
    api: str | None = None
    sweep: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()
    arrivals: ArrivalGap = field(default_factory=lambda: Distribution.parse("poisson", ARRIVAL_GAPS))
    trace: str | None = None
    trace_speed: float = 1.0
    trace_window: tuple[float, float] | None = None
    trace_unit: str | None = None
    trace_block_size: int = BLOCK_TOKENS
    max_in_flight: int | None = None
    overflow: str = "wait"
    find: str | None = None
    find_stages: int = 12
    requests: int | None = None
    stage_s: float | None = None
    warmup_requests: int = 1
    warmup_s: float = 0.0
    ramp_s: float = DEFAULT_RAMP_S
    stop_on_errors: float | None = None
    input_tokens: Distribution = field(default_factory=lambda: Distribution.parse("550,150", LENGTHS))
    output_tokens: Distribution = field(default_factory=lambda: Distribution.parse("150,80", LENGTHS))
    seed: int = 11111
    repeat_prompts: bool = False
    run_key: str | None = None
    prompt: str | None = None
    prompts: str | None = None
    prompts_order: str = "shuffled"
    prefix: Prefixes | None = None
    cache_bust: bool = False
    images: Pictures | None = None
    conversations: Path | None = None
    turns: Distribution = field(default_factory=lambda: Distribution.parse("3,1", TURNS))
    think_time: Distribution = field(default_factory=lambda: Distribution.parse("1s", THINK_TIMES))
    cancel: tuple[float, float] | None = None
    """(share of the requests, seconds after t0)."""
    targets: tuple[Target, ...] = ()
    tokenizer: str | None = None
    extra_body: dict[str, Any] = field(default_factory=dict)
    header_variables: tuple[tuple[str, str], ...] = ()
    timeout_s: float = 600.0
    transport: str = "fast"
    new_connections: bool = False
    redirect_to: tuple[str, ...] = ()
    cookies: bool = False
    client_cert: str | None = None
    insecure: bool = False
    proxy_loopback: bool = False
    offsets: bool = False
    simulator: str | None = None
    framework: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    slo: str | None = None
    slo_stage: str = "all"
    report: bool = False
    region: str | None = None
    invoke_format: str | dict[str, Any] | None = None
    prices: Prices | None = None
    budget: float | None = None

    @classmethod
    def parse(cls, parsed: Any) -> Options:
        """From Locust's parsed options (or None: all defaults). Raises ``OptionError``."""
        values: dict[str, Any] = {}
        for option in _OPTIONS:
            value = getattr(parsed, option.dest, None)
            if not value and value is not False:
                value = option.default
            if value is None:
                continue
            try:
                values[option.dest] = _value(option, value)
            except ValueError as error:
                raise OptionError(f"{option.flag}: {error}") from None
        check_trace(values)
        warmup_requests, warmup_s = values.get("llm_warmup", (1, 0.0))
        # A ramp is no part of MEASURE, so without a warm-up all users start together unless a ramp is asked for.
        values.setdefault("llm_ramp", DEFAULT_RAMP_S if warmup_requests or warmup_s else 0.0)
        if "llm_lengths" in values:
            values["llm_input_tokens"], values["llm_output_tokens"] = values["llm_lengths"]
        options = cls(
            warmup_requests=warmup_requests,
            warmup_s=warmup_s,
            header_variables=tuple(values.get("llm_header_env", ())),
            redirect_to=tuple(values.get("llm_redirect_to", ())),
            metadata=dict(values.get("llm_metadata", ())),
            **{name: values[dest] for name, dest in _FIELDS.items() if dest in values},
        )
        problem = next((text for wrong, text in rules(options) if wrong), None)
        if problem is not None:
            raise OptionError(problem)
        return options

    @property
    def open_loop(self) -> bool:
        """True when requests start on a schedule, whether or not answers have come."""
        return bool(self.rates or self.trace)

    @property
    def staged(self) -> bool:
        """True when stages decide about users, and not Locust's own options."""
        return bool(self.sweep or self.open_loop or self.find)

    @property
    def repeated_run_key(self) -> str | None:
        """The run key of a run that sends the generated prompts of others again; None: the run gets a new one."""
        return REPEATED_RUN_KEY if self.repeat_prompts else self.run_key

    @property
    def stages(self) -> int:
        """How many stages the run has at most."""
        return self.find_stages if self.find else max(1, len(self.sweep), len(self.rates))

    @property
    def most_users(self) -> int:
        """Users of the largest stage, as far as options say it; 0 when they do not."""
        open_ended = self.find is not None and not self.rates and len(self.sweep) < 2
        return FIND_MOST_USERS if open_ended else max(self.sweep, default=0)

    @property
    def stage_requests(self) -> int | None:
        """Measured requests per stage of a sweep; None: as many as fit into the stage's time."""
        if self.requests is None and self.stage_s is None:
            return DEFAULT_REQUESTS
        return self.requests


_OTHER_NAMES = {"rates": "llm_rate", "stage_s": "llm_stage_time", "ramp_s": "llm_ramp", "timeout_s": "llm_timeout"}
_PARSED_APART = ("warmup_requests", "warmup_s", "header_variables", "redirect_to", "metadata")
_FIELDS = {
    entry.name: _OTHER_NAMES.get(entry.name, f"llm_{entry.name}")
    for entry in fields(Options)
    if entry.name not in _PARSED_APART
}
"""Which option each field of ``Options`` comes from."""


def _value(option: _Option, value: Any) -> Any:
    if option.switch:
        return value if isinstance(value, bool) else str(value).lower() in ("1", "true", "yes", "on")
    if option.many:
        items = value if isinstance(value, list) else str(value).split(",")
        return [option.check(str(item)) for item in items if item != ""]  # the web form sends empty fields
    if option.choices and value not in option.choices:
        raise OptionError(f"{value!r} is not one of {', '.join(option.choices)}")
    return option.check(str(value))


def as_text(parsed: Any) -> dict[str, Any]:
    """The options as given, for the manifest."""
    return {option.dest: getattr(parsed, option.dest, None) for option in _OPTIONS}
