"""The accuracy benchmark works: small rows, end to end on the simulator, with bounds for a noisy machine."""

from __future__ import annotations

import dataclasses
import json
import socket
import ssl
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from llm_users.calibration.measured_run import MeasuredRun, Sent, SimulatorEndpoint, Timing, Truth
from tests.system.accuracy import markdown
from tests.system.accuracy.bounds import (
    CONVERSE,
    INVOKE,
    NATIVE,
    NATIVE_BOUNDS,
    SIMULATOR,
    SIMULATOR_BOUNDS,
    Bounds,
    bounds_of,
)
from tests.system.accuracy.circumstances import TlsEndpoint
from tests.system.accuracy.control_run import ControlPlan, ControlRun, measure_control
from tests.system.accuracy.endpoints import NativeEndpoint
from tests.system.accuracy.judging import Line, wrong_health
from tests.system.accuracy.load_run import Plan, measure
from tests.system.accuracy.main import main
from tests.system.accuracy.profile import EVENT_LOOP, OTHER, PARTS, part_of
from tests.system.accuracy.profile import main as print_profile
from tests.system.accuracy.rows import native_plans, signed_plan, with_references
from tests.system.accuracy.signing import print_costs

PLAN = Plan(streams=4, requests=12, ramp="0.5s", timing=Timing(ttft_s=0.2, gap_s=0.02, tokens=16))


@pytest.fixture(scope="module")
def outcome() -> MeasuredRun:
    return measure(PLAN, native=None)


def test_the_rows_agree_with_the_server_s_own_send_times(outcome: MeasuredRun) -> None:
    assert (outcome.failed, outcome.miscounted) == (0, 0)
    assert 0 < outcome.ttft_p50_s < 0.02
    assert outcome.span_p99_s < 0.02
    assert 0.8 < outcome.rate <= 1.001
    assert 0 < outcome.cpu_per_token_s < 0.005


def test_the_table_shows_figures_bounds_and_verdict(outcome: MeasuredRun) -> None:
    good = dataclasses.replace(
        outcome, ttft_p50_s=1e-4, ttft_p99_s=2e-4, span_p99_s=1e-4, cpu_per_token_s=4e-5, rate=1.0,
        late_p99_s=1e-3, other_cores=0.0,
    )  # fmt: skip
    text = markdown.line(Line(PLAN, (good,), SIMULATOR_BOUNDS[256]))
    assert "| 0.10 / 0.20 ms (≤ 0.3 / 1) |" in text
    assert text.endswith("| pass |")
    assert text.count("|") == markdown.header()[0].count("|")
    worse = [dataclasses.replace(good, ttft_p99_s=1.5e-3), dataclasses.replace(good, rate=0.5)]
    assert Line(PLAN, (worse[0],), SIMULATOR_BOUNDS[256]).verdict == "MISS: TTFT p99"
    assert Line(PLAN, (worse[1],), SIMULATOR_BOUNDS[256]).verdict == "MISS: rate"
    assert Line(PLAN, (worse[0], good, good), SIMULATOR_BOUNDS[256]).verdict == "pass"  # medians


def tokens_between(truth: Truth, start_ns: int, end_ns: int, tokens: int) -> int:
    """Return how many tokens the server sent in this time, if it sent those of an answer evenly."""
    sent_ns = [
        sent.first_ns + (sent.last_ns - sent.first_ns) * index / (tokens - 1)
        for sent in truth.sent.values()
        for index in range(tokens)
    ]
    return sum(start_ns < moment_ns <= end_ns for moment_ns in sent_ns)


@pytest.mark.parametrize("per_stream", [1, 3])
def test_the_control_counts_what_the_server_sent_in_the_window(per_stream: int) -> None:
    streams, timing = 8, PLAN.timing
    run = measure_control(ControlPlan(streams, streams * per_stream, 0.2, timing), SimulatorEndpoint)
    counts, sent = run.counts, sorted(run.truth.sent.values(), key=lambda sent: sent.received_ns)
    assert counts["requests"] == len(sent) == streams * (1 + per_stream)
    assert counts["tokens"] == len(sent) * timing.tokens
    # From the first measured start to the last one, or if that is too short, to the end of the last answer.
    end_ns = sent[-1].received_ns if per_stream > 1 else max(answer.last_ns for answer in sent)
    assert counts["window_start_ns"] == pytest.approx(sent[streams].received_ns, abs=5e7)
    assert counts["window_end_ns"] == pytest.approx(end_ns, abs=5e7)
    in_window = tokens_between(run.truth, counts["window_start_ns"], counts["window_end_ns"], timing.tokens)
    assert counts["window_tokens"] == pytest.approx(in_window, abs=2 * streams)  # those on their way at the borders
    window_s = (counts["window_end_ns"] - counts["window_start_ns"]) / 1e9
    assert 0 < counts["window_cpu_s"] < window_s
    assert run.cpu_per_token_s == counts["window_cpu_s"] / counts["window_tokens"]


def control(cpu_per_token_s: float, late_p99_s: float = 0.0) -> ControlRun:
    counts = {"window_cpu_s": cpu_per_token_s * 1000, "window_tokens": 1000}
    return ControlRun(counts, Truth({}, late_p99_s, 0.0), 0.0)


def test_the_cpu_is_judged_as_a_ratio_to_the_control(outcome: MeasuredRun) -> None:
    bounds = Bounds(1.0, 1.0, None, 0.0, cpu_ratio=0.9)
    good = dataclasses.replace(outcome, cpu_per_token_s=16e-6, late_p99_s=0.0, other_cores=0.0)
    # The machine was twice as slow in the second round.
    slow = dataclasses.replace(good, cpu_per_token_s=32e-6)
    line = Line(PLAN, (good, slow), bounds, (control(20e-6), control(40e-6)))
    assert line.verdict == "pass"
    assert "| 24.0 µs | 30.0 µs | 0.80 (≤ 0.9) |" in markdown.line(line)
    assert Line(PLAN, (good,), bounds, (control(17e-6),)).verdict == "MISS: CPU ratio"
    assert Line(PLAN, (good,), bounds).verdict == "MISS: CPU ratio"
    assert Line(PLAN, (good,), bounds, (control(20e-6, late_p99_s=0.006),)).verdict == "server late"
    # A control that is only printed cannot spoil the row.
    printed = dataclasses.replace(bounds, cpu_ratio=None)
    assert Line(PLAN, (good,), printed, (control(1e-6, late_p99_s=0.006),)).verdict == "pass"


def test_the_health_is_judged_by_most_of_the_runs(outcome: MeasuredRun) -> None:
    bounds = Bounds(1.0, 1.0, None, 0.0, health=("ok",))
    quiet = dataclasses.replace(outcome, late_p99_s=0.0, other_cores=0.0, ttft_p99_s=1e-4)
    ok, strained = (dataclasses.replace(quiet, health=health) for health in ("ok", "strained"))
    assert Line(PLAN, (strained, ok, ok), bounds).verdict == "pass"
    assert Line(PLAN, (strained, ok), bounds).verdict == "MISS: health"
    assert "| ok, strained (ok) |" in markdown.line(Line(PLAN, (ok, strained), bounds))
    lenient = dataclasses.replace(bounds, health=("ok", "strained"))
    assert Line(PLAN, (strained,), lenient).verdict == "pass"


def test_the_rows_of_the_native_server_have_bounds_and_references() -> None:
    rows = with_references(native_plans(), on_simulator=False)
    plain = Plan(256, 1024, "0.5s", Timing(0.2, 0.02, 128))
    assert [row.reference for row in rows[:2]] == [plain, plain]  # TLS and ConverseStream
    control_plan = ControlPlan(1000, 3000, 0.5, Timing(0.2, 0.05, 64))
    assert [row.reference for row in rows[2:]] == [control_plan, None, control_plan]  # None: 1,500 streams
    for row in rows:
        plan = row.plan
        assert bounds_of(plan.streams, NATIVE, plan.processes, plan.api, is_tls=plan.tls) is not None
    assert bounds_of(512, NATIVE) is NATIVE_BOUNDS[512]
    assert bounds_of(512, SIMULATOR) is None


class KeptSimulator(SimulatorEndpoint):
    """A simulator that keeps its log."""

    def truth(self) -> Truth:
        self.kept = super().truth()
        return self.kept


def ask_over_tls(port: int | None) -> None:
    """Send a chat completion in one write, and read the answer."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    context = ssl._create_unverified_context()
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as connection:
        connection.sendall(head.encode() + body)
        answer = b""
        while b"[DONE]" not in answer:
            answer += connection.recv(65536)


def test_over_tls_the_send_times_are_those_of_the_proxy(tmp_path: Path) -> None:
    started: list[KeptSimulator] = []

    def start(timing: Timing, folder: Path) -> KeptSimulator:
        started.append(KeptSimulator(timing, folder))
        return started[0]

    endpoint = TlsEndpoint(start, PLAN.timing, tmp_path)
    try:
        for _ in range(2):
            ask_over_tls(urlsplit(endpoint.url).port)
        by_proxy = endpoint.truth().sent
    finally:
        endpoint.stop()
    by_server = started[0].kept.sent
    assert len(by_proxy) == 2
    for response_id, sent in by_proxy.items():
        server = by_server[response_id]
        assert sent != server
        # The simulator converts the kernel's timestamps, with an error of some microseconds.
        assert server.received_ns - 1e8 < sent.received_ns < server.received_ns + 1e6
        assert server.first_ns < sent.first_ns < server.first_ns + 1e8
        assert server.last_ns < sent.last_ns < server.last_ns + 1e8


NATIVE_SERVER = """#!{python}
import json, signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
value = dict(zip(sys.argv[1::2], sys.argv[2::2]))
with open(value["--log"], "w") as log:
    print("req_id,t_recv_ns,t_first_ns,t_last_ns", file=log)
    print("7,1,2,3", file=log)
listener = socket.create_server(("127.0.0.1", int(value["--port"])))
signal.sigwait([signal.SIGTERM])
print(json.dumps({{"late_us_p99_le": 160, "cpu_s": 0.5, "tokens": 1000}}))
"""


def test_answers_of_a_native_server_are_found_by_response_id_and_by_request_id(tmp_path: Path) -> None:
    binary = tmp_path / "server"
    binary.write_text(NATIVE_SERVER.format(python=sys.executable))
    binary.chmod(0o755)
    truth = NativeEndpoint(binary, PLAN.timing, tmp_path).truth()
    sent = Sent(1, 2, 3)
    assert truth.sent == {"chatcmpl-7": sent, "00000000-0000-0000-0000-000000000007": sent}
    assert (truth.late_p99_s, truth.cpu_per_token_s) == (160e-6, 0.5e-3)


@pytest.mark.parametrize(
    ("circumstance", "verdict"), [({"late_p99_s": 0.006}, "server late"), ({"other_cores": 0.5}, "machine busy")]
)
def test_a_spoilt_run_is_not_judged(outcome: MeasuredRun, circumstance: dict[str, float], verdict: str) -> None:
    quiet = dataclasses.replace(outcome, late_p99_s=1e-3, other_cores=0.0, ttft_p99_s=1.0)
    line = Line(PLAN, (dataclasses.replace(quiet, **circumstance),), SIMULATOR_BOUNDS[256])  # type: ignore[arg-type]
    assert line.verdict == verdict
    assert not line.missed


@pytest.mark.parametrize(
    ("figures", "wrong"),
    [
        ({"health": "ok", "ttft_p99_s": 1.9e-3}, None),
        ({"health": "ok", "ttft_p99_s": 2.1e-3}, "called ok"),
        ({"health": "disturbed", "ttft_p99_s": 1.0, "cpu_share": 0.1}, None),
        ({"health": "saturated", "ttft_p99_s": 1.0, "cpu_share": 0.79}, "called saturated"),
        ({"health": "saturated", "ttft_p99_s": 1.0, "cpu_share": 0.9}, None),
        ({"health": "strained", "ttft_p99_s": 1.0, "cpu_share": 0.9}, "not called saturated"),
    ],
)
def test_the_verdict_on_the_client_is_judged_by_its_error_and_its_cpu(
    outcome: MeasuredRun, figures: dict[str, Any], wrong: str | None
) -> None:
    given = dataclasses.replace(outcome, **figures)
    assert wrong_health(given) == wrong
    # Beside busy programs a late server and a busy machine are no excuse.
    spoilt = dataclasses.replace(given, late_p99_s=1.0, other_cores=2.0)
    assert Line(dataclasses.replace(PLAN, busy=True), (spoilt,), None).missed == (wrong is not None)


def test_a_line_beside_busy_programs_and_over_tls() -> None:
    short = dataclasses.replace(PLAN, busy=True, tls=True)
    measured = measure(short, native=None)
    assert (measured.server, measured.failed, measured.miscounted) == ("simulator, TLS", 0, 0)
    assert measured.other_cores > 0.5
    assert wrong_health(measured) is None


def test_the_command_prints_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    small = ["--streams", "2", "--requests", "2", "--tokens", "4", "--ramps", "0", "--tries", "1"]
    assert main(small) == 0
    printed = capsys.readouterr().out
    assert "| API | streams | on | ramp |" in printed
    for asked in ("OpenAI chat", "ConverseStream", "Invoke (Anthropic)"):
        assert f"\n| {asked} | 2 | simulator | 0 | 2 |" in printed


def test_boto3s_own_path_is_measured_and_never_judged(outcome: MeasuredRun) -> None:
    plan = dataclasses.replace(PLAN, api=CONVERSE, sdk=True)
    measured = measure(plan, native=None)
    assert (measured.failed, measured.miscounted, measured.stamp_source) == (0, 0, "user")
    late = dataclasses.replace(outcome, ttft_p99_s=1.0, health="ok", late_p99_s=1e-3, other_cores=0.0)
    line = Line(plan, (late,), None)
    assert line.verdict == "-"
    assert markdown.line(line).startswith("| ConverseStream, boto3's own path | 4 |")


def test_the_bounds_of_bedrock() -> None:
    assert bounds_of(256, SIMULATOR, api=CONVERSE) == dataclasses.replace(SIMULATOR_BOUNDS[256], cpu_per_token_s=60e-6)
    bounds = bounds_of(32, SIMULATOR, api=INVOKE)
    assert bounds is not None
    assert bounds.cpu_per_token_s is None
    assert bounds_of(512, SIMULATOR, api=INVOKE) is None


def test_a_missing_truth_server_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert main(["--truth", "nowhere/truth_server.c"]) == 2
    assert "no native server at nowhere" in capsys.readouterr().err


def test_the_profile_divides_the_cpu_time_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_profile(["--streams", "8", "--requests", "80"]) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "8 streams, 80 requests of 128 tokens, client ok"
    shares = {label.strip(): float(share) for share, _, label in (line.partition("%") for line in lines)}
    assert sum(shares.values()) == pytest.approx(100, abs=0.05 * len(shares) + 1e-9)
    # The work of each token: these parts are never a small share.
    assert shares["read and stamp the responses"] > 10
    assert shares[EVENT_LOOP] > 5


@pytest.mark.parametrize(
    ("functions", "part"),
    [
        (["Hub.run"], EVENT_LOOP),
        (["event loop", "IdleQueue._on_idle", "Hub.run"], EVENT_LOOP),
        (["monotonic_ns", "PlainConnection._on_readable", "Hub.run"], PARTS[0][0]),
        (["RunFiles.write_request", "_publish", "Request.run", "User.run"], PARTS[1][0]),
        (["Request._start", "Request.run", "User.run"], "rest of a request"),
        (["SweepShape.tick"], OTHER),
    ],
)
def test_a_sample_belongs_to_the_first_part_on_its_stack(functions: list[str], part: str) -> None:
    assert part_of(";".join(f"file.py:{name}" if "." in name or "_" in name else name for name in functions)) == part


def test_the_row_with_signed_requests_is_compared_with_plain_chat() -> None:
    (row,) = with_references([signed_plan()], on_simulator=True)
    assert (row.plan.api, row.plan.streams) == ("bedrock-chat", 256)
    assert row.reference == dataclasses.replace(signed_plan(), api="chat")
    bounds = bounds_of(256, SIMULATOR, api="bedrock-chat")
    assert bounds is not None
    assert (bounds.ttft_p99_s, bounds.cpu_ratio) == (0.5e-3, 1.1)


def test_the_cost_of_signatures_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    short = dataclasses.replace(PLAN, timing=Timing(0.05, 0.02, 2))
    print_costs(
        [("chat", "bedrock-chat"), ("messages", "bedrock-messages")], 1, SimulatorEndpoint, short=short, long=PLAN
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["chat", "bedrock-chat", "messages", "bedrock-messages"]
    assert [len(line.split()) for line in lines[1:5]] == [5, 8, 5, 8]
