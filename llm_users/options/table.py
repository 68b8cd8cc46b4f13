"""The table of options: each ``--llm-...`` option is declared once, as a field of ``Options``.

A field's name determines the option's other names: ``stage_time_s`` is ``--llm-stage-time`` on the command line,
``llm-stage-time`` in configuration files, ``LOCUST_LLM_STAGE_TIME`` in the environment, and ``llm_stage_time`` in
Locust's parsed options, in its web form and in the manifest. A name that ends with ``_s`` holds seconds. ``--help``,
docs/options.md and the web form list the options in the groups and in the order of this table.

``command_line`` adds the options to Locust's parser and reads their values; ``rules`` defines which options exclude
each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

from llm_users.distributions import ARRIVAL_GAPS, LENGTHS, THINK_TIMES, TURNS, ArrivalGap, Distribution
from llm_users.number_words import parse_duration
from llm_users.options import parsers
from llm_users.options.parsers import Target, Warmup
from llm_users.prices import Prices
from llm_users.prompts import BLOCK_TOKENS, UNITS, Pictures, Prefixes, parse_mix, parse_window
from llm_users.record import Lengths, RateRange

APIS = (
    "chat", "completions", "responses", "messages", "converse", "invoke",
    "bedrock-chat", "bedrock-responses", "bedrock-messages",
)  # fmt: skip
DEFAULT_REQUESTS = 100
"""Measured requests per stage of a sweep that has neither ``--llm-requests`` nor ``--llm-stage-time``."""
DEFAULT_RAMP = "0.5s"
FIND_MOST_USERS = 1024
"""The highest concurrency that ``--llm-find`` tries when ``--llm-sweep`` gives no limit."""
REPEATED_RUN_KEY = "repeat"
"""The run key of all runs with ``--llm-repeat-prompts``."""
SIMULATOR_DEFAULTS = "default"
"""The value of ``--llm-simulator`` when the user gives the option without a value."""
CALIBRATION_VARIABLE = "LOCUST_LLM_CALIBRATION"
OTHER_VARIABLES = (CALIBRATION_VARIABLE,)
"""Environment variables that start like the variables of options but do not belong to an option."""

PREFIX = "llm_"
"""The start of the names of all options in Locust's parsed options and in its web form."""

T = TypeVar("T")
C = TypeVar("C")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """The declaration of one option. ``name`` is the field of ``Options``; ``default`` is text, as a user writes it."""

    group: str
    help: str
    """What the option does, in a few words: one line of ``--help``."""
    details: str = ""
    """What else a user needs to know. The documentation shows it after ``help``."""
    common: bool = False
    """Most users need the option: ``llm-bench --help`` and the web form show it first."""
    metavar: str = ""
    parse: Callable[[str], Any] = str
    default: str | None = None
    choices: tuple[str, ...] | None = None
    alone: str | None = None
    """The value when the user gives the option without a value."""
    collect: Callable[[Iterable[Any]], Any] | None = None
    """Combines the parsed values of a repeatable option into the value of the field."""
    switch: bool = False
    reads_local: bool = False
    """The value names local files or environment variables, or defines where their content may be sent."""
    name: str = ""

    @property
    def dest(self) -> str:
        """Return the name in Locust's parsed options, in the web form and in the manifest."""
        return PREFIX + self.name.removesuffix("_s")

    @property
    def flag(self) -> str:
        """Return the name on the command line. Without the dashes it is the key in configuration files."""
        return "--" + self.dest.replace("_", "-")

    @property
    def help_line(self) -> str:
        """Return the line of ``--help``."""
        return self.help if self.default is None else f"{self.help} (default: {self.default})"

    @property
    def variable(self) -> str:
        """Return the name of the environment variable."""
        return "LOCUST_" + self.dest.upper()


def _field(declared: Option, value: Any) -> Any:
    return field(default_factory=partial(copy, value), metadata={"option": declared})


class Group(str):
    """A group of options, as ``--help`` and the web form show it. The methods declare the options of the group."""

    @overload
    def option(
        self,
        parse: Callable[[str], T],
        metavar: str,
        help: str,
        *,
        details: str = "",
        default: str,
        reads_local: bool = False,
        common: bool = False,
    ) -> T: ...
    @overload
    def option(
        self,
        parse: Callable[[str], T],
        metavar: str,
        help: str,
        *,
        details: str = "",
        absent: C = ...,
        alone: str | None = None,
        reads_local: bool = False,
        common: bool = False,
    ) -> T | C: ...
    def option(
        self,
        parse: Callable[[str], Any],
        metavar: str,
        help: str,
        *,
        default: str | None = None,
        absent: Any = None,
        **settings: Any,
    ) -> Any:
        """Declare an option with a value. Without ``default`` the field is ``absent`` when the option is not given."""
        declared = Option(group=self, help=help, metavar=metavar, parse=parse, default=default, **settings)
        return _field(declared, absent if default is None else parse(default))

    def repeated(
        self,
        parse: Callable[[str], T],
        metavar: str,
        help: str,
        *,
        collect: Callable[[Iterable[T]], C],
        **settings: Any,
    ) -> C:
        """Declare a repeatable option. In files and in the web form, commas separate the values."""
        help = f"{help}. Repeatable"
        declared = Option(group=self, help=help, metavar=metavar, parse=parse, collect=collect, **settings)
        declaration: C = _field(declared, collect(()))
        return declaration

    @overload
    def choice(
        self, choices: tuple[str, ...], help: str, *, details: str = "", metavar: str = "", default: str
    ) -> str: ...
    @overload
    def choice(self, choices: tuple[str, ...], help: str, *, details: str = "", metavar: str = "") -> str | None: ...
    def choice(
        self,
        choices: tuple[str, ...],
        help: str,
        *,
        details: str = "",
        metavar: str = "",
        default: str | None = None,
    ) -> Any:
        """Declare an option whose value is one of several words. ``metavar`` replaces their list if it is too long."""
        metavar = metavar or "|".join(choices)
        declared = Option(group=self, help=help, details=details, metavar=metavar, choices=choices, default=default)
        return _field(declared, default)

    def switch(self, help: str, **settings: Any) -> bool:
        """Declare an option without a value."""
        declaration: bool = _field(Option(group=self, help=help, switch=True, **settings), False)
        return declaration


GROUPS = SEND, LOAD, STAGES, JUDGE, CONNECTION, OUTPUT = tuple(
    map(Group, ("what to send", "load", "stages", "stop and judge", "connection", "output"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one run, with parsed values. ``command_line.read_options`` creates them from Locust's options."""

    model: str | None = SEND.option(str, "NAME", "Model; default: the only one that the server lists", common=True)
    api: str | None = SEND.choice(
        APIS,
        "API to call; default: the locustfile's",
        details="bedrock-chat, bedrock-responses and bedrock-messages are OpenAI's and Anthropic's APIs on AWS Bedrock",
        metavar="chat|completions|responses|messages|converse|invoke|bedrock-...",
    )
    targets: tuple[Target, ...] = SEND.option(
        parsers.targets,
        "MODEL[@URL][=WEIGHT],...",
        "Several models or endpoints that share the requests",
        details="Each has a share of the requests: small=3,large@https://HOST/v1=1",
        absent=(),
    )
    input_tokens: Distribution = SEND.option(
        partial(Distribution.parse, quantity=LENGTHS),
        "MEAN[,SD]|DISTRIBUTION",
        "Prompt length in tokens",
        details="The length is normally distributed, or has another distribution: lognormal:MEAN,SD, uniform:LOW,HIGH, "
        "fixed:N",
        default="550,150",
        common=True,
    )
    output_tokens: Distribution = SEND.option(
        partial(Distribution.parse, quantity=LENGTHS),
        "MEAN[,SD]|DISTRIBUTION",
        "Maximum output tokens",
        details="In the forms of --llm-input-tokens",
        default="150,80",
        common=True,
    )
    length_mix: tuple[Distribution, Distribution] | None = SEND.option(
        parse_mix,
        "WEIGHT:INPUT/OUTPUT,...",
        "Mix of lengths: 80:500/100,20:4000/500",
        details="It replaces --llm-input-tokens and --llm-output-tokens",
    )
    length_sweep: tuple[Lengths, ...] = SEND.option(
        parsers.length_sweep,
        "INPUT/OUTPUT,...",
        "Sweep of lengths: 1024/128,8192/1024",
        details="Tokens of the prompt and maximum tokens of the answer. Every stage of --llm-sweep or --llm-rate runs "
        "with each pair",
        absent=(),
    )
    prompt: str | None = SEND.option(str, "TEXT", "One fixed prompt for every request")
    prompts: str | None = SEND.option(
        parsers.prompts_file,
        "FILE[:COLUMN]",
        "Dataset: JSONL, CSV, Parquet, text, hf:ORG/NAME",
        details="A text file has one prompt per line. A dataset of the Hugging Face hub is hf:ORG/NAME[:SPLIT]",
        reads_local=True,
    )
    prompts_order: str = SEND.choice(
        ("shuffled", "file"),
        "Order of a dataset",
        details="shuffled: with the seed; file: the order in the file",
        default="shuffled",
    )
    shared_prefix: Prefixes | None = SEND.option(
        Prefixes.parse,
        "TOKENSxCOUNT",
        "Begin each prompt with one of COUNT shared texts",
        details="Each text is TOKENS long: 1000x8",
    )
    cache_bust: bool = SEND.switch(
        "Start every prompt with a different text",
        details="Prompts with a shared or given text too, so that a prefix cache cannot hold any part of them",
    )
    images: Pictures | None = SEND.option(
        Pictures.parse,
        "N[xWxH]|[N:]FOLDER",
        "Images in every prompt: generated, or from FOLDER",
        details="N generated images, or the images of a folder in turn",
        reads_local=True,
    )
    conversations: Path | None = SEND.option(
        parsers.existing_file,
        "FILE",
        "Conversations for ConversationUser, as JSON lines",
        details='Lines with "turns" or "messages", or the ShareGPT format. Default: generated conversations',
        reads_local=True,
    )
    turns: Distribution = SEND.option(
        partial(Distribution.parse, quantity=TURNS),
        "MEAN[,SD]|DISTRIBUTION",
        "Turns of a generated conversation",
        details="In the forms of --llm-input-tokens",
        default="3,1",
    )
    think_time: Distribution = SEND.option(
        partial(Distribution.parse, quantity=THINK_TIMES),
        "TIME[,SD]|DISTRIBUTION",
        "Pause before each further turn",
        details="The turns are those of a conversation. Forms: 1s, exp:2s, 2s,0.5s",
        default="1s",
    )
    no_stream: bool = SEND.switch(
        "Ask for whole answers instead of streams",
        details="Rows have the end-to-end latency and the tokens, but no TTFT, TPOT and gaps. The keyword stream of a "
        "call, or the field in --llm-extra-body, has precedence",
    )
    cancel: tuple[float, float] | None = SEND.option(
        parsers.cancel, "FRACTION:TIME", "Cancel this fraction of requests after TIME: 0.1:2s"
    )
    """(fraction of the requests, seconds after the request was sent)."""
    seed: int = SEND.option(
        parsers.whole,
        "N",
        "Seed of lengths and order",
        details="It fixes lengths, maximum output lengths and order. The texts of generated prompts also differ from "
        "run to run",
        default="11111",
    )
    repeat_prompts: bool = SEND.switch(
        "Send the same generated prompts in every run",
        details="This applies to all runs with the same seed. The prefix cache of the server may hold the prompts",
    )
    run_key: str | None = SEND.option(
        parsers.run_key,
        "TEXT",
        "Send the generated prompts of the run with this key",
        details="The manifest of the other run contains its run_key",
    )
    tokenizer: str | None = SEND.option(
        str,
        "PATH|ID",
        "Tokenizer; default: the packaged one",
        details="A folder, a tokenizer.json file or a hub id",
        reads_local=True,
    )
    count: str | None = SEND.choice(
        ("usage", "tokenizer"),
        "Count answers with the tokenizer too",
        details="The rows then have output_tokens_usage and output_tokens_counted; the value says which one is "
        "output_tokens, for rates and TPOT. Default: usage. With --llm-tokenizer, answers are counted too if one core "
        "is fast enough",
    )
    extra_body: dict[str, Any] = SEND.option(
        parsers.json_object, "JSON", 'Extra fields of each request: {"temperature": 0}', absent={}
    )
    invoke_format: str | dict[str, Any] | None = SEND.option(
        parsers.invoke_format,
        "NAME|FILE",
        "Format for Bedrock InvokeModel",
        details="The name of a model family, or a JSON file with body and paths. Default: the family that the model id "
        "names",
        reads_local=True,
    )

    sweep: tuple[int, ...] = LOAD.option(
        parsers.sweep, "LIST", "Concurrency of each stage, for example 1,2,4,8", absent=(), common=True
    )
    rate: tuple[RateRange, ...] = LOAD.option(
        parsers.rates,
        "LIST",
        "Open loop: requests/s of each stage: 5,10,20",
        details="2..20 is a rate that grows from 2 to 20 within the stage; it needs --llm-stage-time",
        absent=(),
    )
    arrivals: ArrivalGap = LOAD.option(
        partial(Distribution.parse, quantity=ARRIVAL_GAPS),
        "DISTRIBUTION",
        "Open loop: times between requests",
        details="The distribution is constant, poisson or gamma:CV",
        default="poisson",
    )
    max_in_flight: int | None = LOAD.option(
        parsers.positive, "N", "Open loop: maximum number of requests in flight", details="Over all workers"
    )
    overflow: str = LOAD.choice(
        ("wait", "drop"),
        "Requests above --llm-max-in-flight",
        details="wait: the request waits, and latencies from the intended start include the wait; drop: the request is "
        "dropped, and its row says so",
        default="wait",
    )
    trace: str | None = LOAD.option(
        parsers.trace_file,
        "FILE",
        "Open loop: replay recorded traffic",
        details="The trace has the Mooncake, BurstGPT, Azure or Vidur format",
        reads_local=True,
    )
    trace_speed: float = LOAD.option(parsers.factor, "FACTOR", "Trace replay speed multiplier", default="1")
    trace_window: tuple[float, float] | None = LOAD.option(
        parse_window, "FROM-TO", "Part of a trace to replay: 0-600, 10m-20m", details="In the trace's time"
    )
    trace_unit: str | None = LOAD.choice(
        tuple(UNITS), "Unit of the times in a trace", details="Default: inferred from the times; a note says how"
    )
    trace_block_size: int = LOAD.option(
        parsers.block_size,
        "TOKENS",
        "Tokens per hash_ids entry of a trace",
        default=str(BLOCK_TOKENS),
    )
    find: str | None = LOAD.option(
        str,
        "EXPR",
        "Search for the highest load that meets objectives",
        details="Example: ttft_p95<0.5,tpot_p95<0.05. --llm-sweep LOW,HIGH or --llm-rate LOW,HIGH limits the search. "
        "Each stage has at least --llm-requests requests and lasts at least 30 s, ten times the largest latency limit "
        "and 12 times the latency of the first stage, or --llm-stage-time",
    )
    find_stages: int = LOAD.option(parsers.positive, "N", "Maximum number of stages of the search", default="12")

    requests: int | None = STAGES.option(
        parsers.positive,
        "N",
        f"Measured requests per stage; default: {DEFAULT_REQUESTS} in a sweep",
        details="Over all workers, failures included",
        common=True,
    )
    stage_time_s: float | None = STAGES.option(
        parse_duration,
        "TIME",
        "Measure each stage for this time",
        details="With --llm-requests, whichever comes first ends the stage",
    )
    warmup: Warmup = STAGES.option(
        parsers.warmup,
        "N|TIME",
        "Warm-up before each stage is measured",
        details="N requests per user, or a time (10s); 0 means no warm-up",
        default="1",
    )
    ramp_s: float | None = STAGES.option(
        parse_duration,
        "TIME",
        "Start the users of a stage evenly over this time",
        details=f"Default: {DEFAULT_RAMP}; without a warm-up 0 (at once)",
    )

    stop_on_errors: float | None = JUDGE.option(
        parsers.ratio,
        "FRACTION",
        "End the sweep when more than this fraction fails",
        details="The fraction is that of the requests of one stage",
    )
    keep_going: bool = JUDGE.switch(
        "Continue although the endpoint refuses all requests",
        details="Without it, a run ends with exit code 2 if its first requests all fail with 400, 401, 403, 404 or "
        "similar, or without a connection, and with exit code 3 if a daily quota is exceeded",
    )
    slo: str | None = JUDGE.option(
        str,
        "EXPR",
        "Exit with code 3 unless these objectives are met",
        details="The 95 percent interval of every objective must be within its limit: ttft_p95<0.5,errors<0.01",
        common=True,
    )
    slo_stage: str = JUDGE.option(
        parsers.stage_to_judge,
        "all|best|N",
        "Stages that --llm-slo judges",
        details="All, the best one, or the one with this number",
        default="all",
    )
    prices: Prices | None = JUDGE.option(
        parsers.load_prices,
        "FILE",
        "File of prices, to report the cost of a stage",
        details="Prices are per million tokens. LiteLLM's model_prices_and_context_window.json is also valid",
        reads_local=True,
    )
    budget: float | None = JUDGE.option(
        parsers.amount, "AMOUNT", "End the run before it costs more than this", details="Needs --llm-prices"
    )

    timeout_s: float = CONNECTION.option(parse_duration, "TIME", "Deadline of one request", default="600s")
    stall_timeout_s: float | None = CONNECTION.option(
        parse_duration,
        "TIME",
        "End a request after this time without bytes",
        details="The time counts from sending the request and from each read. Heartbeats count as bytes. Default: only "
        "--llm-timeout",
    )
    transport: str = CONNECTION.choice(
        ("fast", "sdk"),
        "HTTP stack",
        details="fast: kernel receive timestamps; sdk: the HTTP stack of the SDK, for comparison",
        default="fast",
    )
    new_connections: bool = CONNECTION.switch("Open a connection for every request, as LLMPerf does")
    redirect_to: tuple[str, ...] = CONNECTION.repeated(
        parsers.web_origin,
        "ORIGIN",
        "Allow redirects to this origin",
        details="Prompts and keys are sent there too. Default: redirects to other origins are errors",
        collect=tuple,
        reads_local=True,
    )
    header: tuple[tuple[str, str], ...] = CONNECTION.repeated(
        parsers.plain_header,
        "NAME=VALUE",
        "Extra header, for example for routing",
        details="The files of a run contain the value. Give credentials with --llm-header-env",
        collect=tuple,
    )
    """(header, value)."""
    header_env: tuple[tuple[str, str], ...] = CONNECTION.repeated(
        parsers.header_from_environment,
        "NAME=VAR",
        "Extra header with the value of VAR",
        details="VAR is an environment variable",
        collect=tuple,
        reads_local=True,
    )
    """(header, environment variable)."""
    cookies: bool = CONNECTION.switch(
        "Keep cookies, in a jar for each user", details="Default: cookies are not sent back"
    )
    client_cert: str | None = CONNECTION.option(
        str,
        "PATH[,KEY]",
        "Client certificate in PEM format",
        details="A PEM file that contains its key, or a PEM file and a key file. Default: SSL_CLIENT_CERT and "
        "SSL_CLIENT_KEY",
        reads_local=True,
    )
    insecure: bool = CONNECTION.switch("Do not verify the certificate of the server", details="Every output says so")
    proxy_loopback: bool = CONNECTION.switch(
        "Use the proxy for this machine too",
        details="Requests to this machine also go through HTTP_PROXY or HTTPS_PROXY",
    )
    region: str | None = CONNECTION.option(
        str,
        "NAME",
        "AWS region of Bedrock",
        details="Default: AWS_REGION, AWS_DEFAULT_REGION, or the region of the profile",
    )
    bedrock_endpoint: str = CONNECTION.choice(
        ("runtime", "mantle"),
        "Endpoint of the bedrock-... APIs",
        details="runtime: bedrock-runtime, which AWS recommends; mantle: bedrock-mantle, which has models that "
        "bedrock-runtime does not have",
        default="runtime",
    )
    simulator: str | None = CONNECTION.option(
        str,
        "SPEC",
        "Start the simulated endpoint and use it",
        details="Example: ttft=200ms,itl=20ms,capacity=8",
        alone=SIMULATOR_DEFAULTS,
    )
    web_origin: tuple[str, ...] = CONNECTION.repeated(
        parsers.web_origin,
        "ORIGIN",
        "Origin that may control the web interface",
        details="Such as the origin of a reverse proxy",
        collect=tuple,
    )

    report: bool = OUTPUT.switch(
        "Write the report folder at the end", details="It contains the tables, and a page with figures", common=True
    )
    server_metrics: tuple[str, ...] | None = OUTPUT.option(
        parsers.server_metrics,
        "URL,...|off",
        "The server's own metrics to record beside the client's",
        details="Default: /metrics of each endpoint, if it answers with the metrics of a known server; never at "
        "OpenAI, Anthropic, Azure and AWS",
    )
    chunk_times: bool = OUTPUT.switch("Also write the arrival time of every chunk")
    framework: str | None = OUTPUT.option(str, "NAME", "Name of the serving framework in tables and files")
    metadata: dict[str, str] = OUTPUT.repeated(parsers.pair, "KEY=VALUE", "Note for the files", collect=dict)

    @property
    def open_loop(self) -> bool:
        """Return whether requests start on a schedule, independent of the answers."""
        return bool(self.rate or self.trace)

    @property
    def staged(self) -> bool:
        """Return whether stages determine the users, and not Locust's own options. ``STAGING`` lists the options."""
        return bool(self.sweep or self.open_loop or self.find)

    @property
    def repeated_run_key(self) -> str | None:
        """Return the run key of a run that repeats generated prompts. None means that the run gets a new key."""
        return REPEATED_RUN_KEY if self.repeat_prompts else self.run_key

    @property
    def stages(self) -> int:
        """Return the maximum number of stages of the run."""
        listed = max(1, len(self.length_sweep)) * max(1, len(self.sweep), len(self.rate))
        return self.find_stages if self.find else listed

    @property
    def most_users(self) -> int:
        """Return the users of the largest stage if the options define them, else 0."""
        open_ended = self.find is not None and not self.rate and len(self.sweep) < 2
        return FIND_MOST_USERS if open_ended else max(self.sweep, default=0)

    @property
    def stage_requests(self) -> int | None:
        """Return the measured requests per stage of a sweep. None means as many as fit into the stage's time."""
        if self.requests is None and self.stage_time_s is None:
            return DEFAULT_REQUESTS
        return self.requests

    @property
    def stage_warmup(self) -> Warmup:
        """Return the warm-up of each stage. A trace has none, because a warm-up would take requests from the trace."""
        return self.warmup if self.trace is None else Warmup()

    @property
    def stage_ramp_s(self) -> float:
        """Return the seconds over which the users of a stage start.

        A ramp is not part of the measured time, so without a warm-up all users start together unless the user gives a
        ramp.
        """
        if self.ramp_s is not None:
            return self.ramp_s
        return parse_duration(DEFAULT_RAMP) if any(self.stage_warmup) else 0.0


OPTIONS: tuple[Option, ...] = tuple(replace(entry.metadata["option"], name=entry.name) for entry in fields(Options))
"""All options, in the order of their declaration."""

STAGING = tuple(entry.dest for entry in OPTIONS if entry.name in ("sweep", "rate", "find", "trace"))
"""Options, by their names in the web form, that make a run consist of stages."""

READS_LOCAL = tuple(entry.dest for entry in OPTIONS if entry.reads_local)
"""Options, by their names in the web form, whose values name files or environment variables."""


def option_named(name: str) -> Option:
    """Return the option with this field name. Raises ``KeyError``."""
    return {entry.name: entry for entry in OPTIONS}[name]
