"""The command `llm-simulator`: parses the options, handles signals, and prints the ready line and the totals.

It does not depend on wire formats or on the schedule.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import ipaddress
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from llm_users._version import __version__
from llm_users.simulator.engine import Engine
from llm_users.simulator.log import RequestLog
from llm_users.simulator.poller import make_poller, sharpen_timers
from llm_users.simulator.routes import Routes
from llm_users.simulator.spec import Spec

# The launcher passes the spec in this variable: every user of the machine can read a command line.
SPEC_VARIABLE = "LLM_SIMULATOR_SPEC"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llm-simulator",
        description="An endpoint with known timing that speaks the OpenAI API and AWS Bedrock's runtime API: "
        "token k is sent at arrival + ttft + k * itl.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1, loopback only")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 picks a free port; default: 8000")
    parser.add_argument("--spec", metavar="KEY=VALUE,…", help=f"keys below as one string; default: ${SPEC_VARIABLE}")
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="write the send time of each token, one JSON line per request"
    )
    parser.add_argument("--max-seconds", type=float, default=0.0, metavar="S", help="stop after S seconds; 0: never")
    parser.add_argument("--parent-pid", type=int, metavar="PID", help="stop when this process ends")
    parser.add_argument("--stdin-eof", action="store_true", help="stop when standard input ends")
    parser.add_argument(
        "--poller", choices=("auto", "epoll", "selectors"), default="auto", help="how to wait for sockets"
    )
    group = parser.add_argument_group("keys of the spec, which override --spec")
    for f in dataclasses.fields(Spec):
        key, meaning = f.metadata["key"], f.metadata["meaning"]
        group.add_argument(f"--{key.replace('_', '-')}", dest=f"key_{key}", metavar="VALUE", help=meaning)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    options = parser.parse_args(argv)
    keys = {name[4:]: text for name, text in vars(options).items() if name.startswith("key_") and text is not None}
    spec_text = options.spec if options.spec is not None else os.environ.get(SPEC_VARIABLE, "")
    try:
        spec = Spec.of_texts({**Spec.parse_texts(spec_text), **keys})
    except ValueError as error:
        parser.error(str(error))
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        # A few thousand users can connect at the same moment; the kernel caps the backlog at its own limit.
        listener = socket.create_server((options.host, options.port), family=family, backlog=8192)
    except (OSError, OverflowError) as error:
        return _fail(f"cannot listen on {options.host} port {options.port}: {error}")
    try:
        log = RequestLog(options.log)
    except OSError as error:
        return _fail(f"cannot write the log: {error}")
    try:
        private = ipaddress.ip_address(options.host).is_loopback
    except ValueError:
        private = options.host == "localhost"
    if not private:
        print(f"llm-simulator: warning: {options.host} can be reached from other machines", file=sys.stderr)
    _raise_descriptor_limit()
    sharpen_timers()
    engine = Engine(listener, spec, partial(Routes, spec), log, make_poller(options.poller))
    stop_if = _stop_with_parent(engine, options.parent_pid)
    if options.stdin_eof and not _stop_at_stdin_eof(engine):
        return _fail("--stdin-eof needs a pipe or a terminal as standard input")
    _stop_on_signals(engine)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    _print_line(f"llm-simulator listening on http://{shown}:{port}/v1")
    # A finished request leaves no reference cycles, and a garbage collection would delay every stream.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        engine.run(limit_s=options.max_seconds, stop_if=stop_if)
    finally:
        log.close()
        _print_line(json.dumps(engine.totals.report()))
    return 0


def _fail(reason: str) -> int:
    print(f"llm-simulator: {reason}", file=sys.stderr)
    return 2


def _print_line(line: str) -> None:
    # Unbuffered; a launcher that has ended is not an error.
    with contextlib.suppress(OSError):
        os.write(1, line.encode() + b"\n")


def _raise_descriptor_limit() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _stop_on_signals(engine: Engine) -> None:
    # Python retries an interrupted wait, so a signal must make a descriptor readable to end the wait.
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: engine.stop())
    engine.watch(receiver, partial(os.read, receiver, 64))


def _stop_at_stdin_eof(engine: Engine) -> bool:
    def readable() -> None:
        with contextlib.suppress(OSError):
            if os.read(0, 4096):
                return
        engine.stop()

    try:
        engine.watch(0, readable)
    except (OSError, ValueError):
        return False
    return True


def _stop_with_parent(engine: Engine, pid: int | None) -> Callable[[], bool] | None:
    """Stop the engine when process `pid` ends.

    Without pidfd support, return a function that the engine calls to check whether the process has ended.
    """
    if pid is None:
        return None

    def gone() -> bool:
        try:
            os.kill(pid, 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
        return False

    try:
        engine.watch(os.pidfd_open(pid), engine.stop)
    except (AttributeError, OSError):  # the process has ended, or the platform, kernel or sandbox has no pidfd
        return gone
    return None


if __name__ == "__main__":
    sys.exit(main())
