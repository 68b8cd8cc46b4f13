"""What the load machine has too little of is not the endpoint's fault. Real limits, each in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap

import pytest

from tests.project import ROOT

_BEGIN = """
import gevent.monkey; gevent.monkey.patch_all()
import os, resource, socket
from llm_users.transport.connection import Origin
from llm_users.transport.pool import connect
from llm_users.transport.errors import ConnectFailed
from llm_users.transport.tls import tls_context

server = socket.create_server(("127.0.0.1", 0), backlog=100)
port = server.getsockname()[1]
kept = []

def reach(host="127.0.0.1", port=port):
    try:
        kept.append(connect(Origin("http", host, port), tls_context, 5))
        print("connected")
    except ConnectFailed as error:
        print(error.code, error)
"""
_FEW = """
most = len(os.listdir("/proc/self/fd")) + 30
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
"""
_NAMESPACE = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && echo "$1" >/proc/sys/net/ipv4/ip_local_port_range && '
              'shift && exec "$@"', "sh", "40000 40009"]  # fmt: skip


def lines_of(script: str, *before: str) -> list[str]:
    done = subprocess.run(
        [*before, sys.executable, "-c", _BEGIN + textwrap.dedent(script)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_descriptors_run_out_for_connections_before_they_do_for_the_rest() -> None:
    lines = lines_of(_FEW + "for _ in range(40): reach()\nkept += [open(os.devnull) for _ in range(20)]")
    assert lines[0] == "connected"
    failed = [line for line in lines if line != "connected"]
    assert len(failed) >= 40 - 6
    assert all(line.startswith("client_limit this machine could not open a connection") for line in failed)
    assert "ulimit -n" in failed[0]


def test_a_name_that_cannot_be_looked_up_for_want_of_descriptors() -> None:
    lines = lines_of(
        _FEW
        + """
        reach("no-such-host.invalid", 80)
        while True:
            try:
                kept.append(open(os.devnull))
            except OSError:
                break
        reach("no-such-host.invalid", 80)
        """.replace("\n        ", "\n")
    )
    assert lines[0].startswith("connect cannot connect to http://no-such-host.invalid")
    assert lines[1].startswith("client_limit ")


@pytest.mark.skipif(shutil.which("unshare") is None or shutil.which("ip") is None, reason="needs a network namespace")
def test_local_ports_run_out() -> None:
    if subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a network namespace")
    lines = lines_of("for _ in range(14): reach()\nreach(port=9)", *_NAMESPACE)
    assert 8 <= lines.count("connected") <= 10
    limited = [line for line in lines if line.startswith("client_limit ")]
    assert len(limited) == 14 - lines.count("connected")
    assert "net.ipv4.ip_local_port_range" in limited[0]
    assert lines[-1].startswith("connect ")  # to another port of the endpoint there are ports, and nobody listens
