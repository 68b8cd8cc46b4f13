"""The server's own metrics in a run: which URLs are read, the rows of each stage, and the notes about them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from llm_users.collect.writer import RunWriter
from llm_users.load.coordinator.coordinator import RunObserver
from llm_users.options.table import Options
from llm_users.outcome import CLIENT_LIMIT, NOT_CONNECTED
from llm_users.record import RequestRecord, ServerMetricRecord
from llm_users.server_metrics.endpoint import TIMEOUT_S, MetricsEndpoint
from llm_users.server_metrics.sampler import Sample, ServerMetrics
from llm_users.transport.pool import Pool
from llm_users.transport.proxies import Proxies
from llm_users.transport.tls import TlsSettings
from llm_users.wiring.paid_endpoints import is_paid_url

_COUNTS_DIFFER = 0.01
"""From this relative difference on, the counts of the server and of the rows get a note."""


@dataclass(slots=True)
class _Sent:
    """What the rows of a stage say: how many requests were sent (or sent again), how many succeeded, and their tokens.

    The tokens are None if a row has no count of the server, or if a request was sent again.
    """

    requests: int = 0
    ok: int = 0
    first_at: float | None = None
    ramps: bool = False
    """Whether requests were sent while users were still started."""
    input_tokens: int | None = 0
    output_tokens: int | None = 0

    def add(self, record: RequestRecord) -> None:
        if record.started_at is None or record.error_code in (NOT_CONNECTED, CLIENT_LIMIT):
            return  # the server has not received the request
        self.first_at = min(self.first_at or record.started_at, record.started_at)
        self.ramps = self.ramps or record.phase == "ramp"
        again = (record.retries or 0) + (record.reconnects or 0)
        self.requests += 1 + again
        self.ok += record.ok
        if (record.http_status or 200) != 200:
            return  # the server has not served the request
        if again:
            self.input_tokens = self.output_tokens = None
        self.input_tokens = _added(self.input_tokens, record.input_tokens, record.input_tokens_source)
        self.output_tokens = _added(
            self.output_tokens,
            record.output_tokens if record.output_tokens_usage is None else record.output_tokens_usage,
            "usage" if record.output_tokens_usage is not None else record.output_tokens_source,
        )


def _added(total: int | None, tokens: int | None, source: str | None) -> int | None:
    return None if total is None or tokens is None or source != "usage" else total + tokens


class RunServerMetrics(RunObserver):
    """Samples the servers of one run after another.

    ``endpoints`` returns the base URLs of the requests.
    """

    def __init__(self, endpoints: Callable[[Options], Iterable[str]]) -> None:
        self._endpoints = endpoints
        self._metrics: ServerMetrics | None = None
        self._writer: RunWriter | None = None
        self._note: Callable[[str], None] | None = None
        self._sent: defaultdict[int, _Sent] = defaultdict(_Sent)
        self._noted: set[str] = set()
        self._was_idle = True

    def latest(self) -> list[Sample]:
        """Return the last sample of each server of the present or last run."""
        return self._metrics.latest() if self._metrics is not None else []

    def samples_since(self, number: int) -> list[Sample]:
        """Return the samples of the present or last run after the one with this number."""
        return self._metrics.samples_since(number) if self._metrics is not None else []

    def row(self, record: RequestRecord) -> None:
        """Count a row of the run."""
        if self._metrics is not None and self._metrics.is_reading:
            self._sent[record.stage].add(record)

    def run_begins(self, options: Options, writer: RunWriter, note: Callable[[str], None]) -> None:
        """Find the servers that publish metrics, and begin to sample them."""
        self.run_ends()
        self._writer, self._note = writer, note
        self._sent.clear()
        self._noted.clear()
        self._was_idle = True
        urls = self._urls(options)
        tls = TlsSettings.parse(options.client_cert, insecure=options.insecure)
        pool = Pool(TIMEOUT_S, tls=tls, proxies=Proxies(loopback=options.proxy_loopback))
        self._metrics = ServerMetrics(
            [MetricsEndpoint(url, pool) for url in urls],
            asked=options.server_metrics is not None,
            note=note,
        )
        if self._metrics.is_reading:
            writer.write_manifest(server_metrics=self._metrics.about)

    def stage_starts(self, stage: int) -> None:
        """Open the stage for all servers."""
        if self._metrics is not None:
            self._metrics.stage_starts(stage)

    def stage_ends(self, stage: int, *, is_idle: bool) -> None:
        """Write the rows of a stage, and note the first counts of a kind that differ from those of the rows.

        If the server was not idle before and after the stage, its counts include requests of another stage.
        """
        was_idle, self._was_idle = self._was_idle, is_idle
        if self._metrics is None or self._writer is None or self._note is None:
            return
        sent = self._sent[stage]
        first_at = sent.first_at if was_idle and sent.ramps else None
        rows = self._metrics.stage_ends(stage, self._writer.run_id, is_idle=is_idle, first_at=first_at)
        self._writer.add_server_metrics(rows)
        if not (rows and was_idle and is_idle):
            return
        kind, text = _difference(rows, sent)
        if text and kind not in self._noted:
            self._noted.add(kind)
            self._note(f"stage {stage}: {text}")

    def run_ends(self) -> None:
        """Stop sampling."""
        if self._metrics is not None:
            self._metrics.stop()

    def _urls(self, options: Options) -> list[str]:
        if options.server_metrics is not None:
            return list(options.server_metrics)
        urls: dict[str, None] = {}
        for endpoint in self._endpoints(options):
            parts = urlsplit(endpoint)
            if is_paid_url(endpoint):
                continue
            path = parts.path.rstrip("/").removesuffix("/v1")
            urls[f"{parts.scheme}://{parts.netloc}{path}/metrics"] = None
        return list(urls)


def _difference(rows: list[ServerMetricRecord], sent: _Sent) -> tuple[str, str]:
    """Return how the server's counts differ from those of the rows: the kind of the difference and a text, or ""."""
    increases: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        increases[row.metric] += row.increase or 0.0
    finished = increases.get("requests_finished", increases.get("e2e_s"))
    if finished is not None and finished > sent.requests:
        return "more", (
            f"the server finished {finished:.0f} requests and the rows have {sent.requests}: other clients used the "
            "server too, so its metrics include their requests"
        )
    if finished is not None and finished < (1 - _COUNTS_DIFFER) * sent.ok:
        return "fewer", (
            f"the server finished {finished:.0f} requests and the rows have {sent.ok} successful ones: other servers, "
            "whose metrics are not read, answered the rest; give the URLs of all servers with --llm-server-metrics"
        )
    parts = []
    for metric, name, counted in (
        ("prompt_tokens", "prompt", sent.input_tokens),
        ("generation_tokens", "output", sent.output_tokens),
    ):
        if counted and metric in increases and abs(increases[metric] - counted) > _COUNTS_DIFFER * counted:
            share = (increases[metric] - counted) / counted
            parts.append(f"{increases[metric]:.0f} {name} tokens instead of {counted} ({share:+.1%})")
    return "tokens", f"the server's metrics count {' and '.join(parts)} in the rows" if parts else ""
