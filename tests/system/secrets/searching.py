"""What the searches for marked secrets have in common: the marks, the places, how a run is made and looked at."""

from __future__ import annotations

import base64
import csv
import io
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from tests.forward_proxy import ForwardProxy

LOCUSTFILE = Path(__file__).with_name("leaky_locustfile.py")
LOCUST = str(Path(sys.executable).with_name("locust"))

KEY = "canary-Key/of+OpenAI-4c7a91"
SHAPED = "sk-canary0123456789abcdefABCDEF"  # never told to anybody: known by its looks only
HEADER = "canary-header-of-the-gateway-77b0"
PASSWORD = "canary:url pass@word-19d2"
QUERY = "canary-query-key-5e5e"
PROXY_PASSWORD = "canary-proxy-pass%word-a2a2"
AWS_ID, AWS_SECRET, AWS_TOKEN = (
    "AKIACANARY0123456789",
    "canaryAwsSecret/0123456789abcdef",
    "canary-session-token-c3c3==",
)
BEARER = "canary-bearer/of+bedrock-e1e1"
ANTHROPIC_KEY, ANTHROPIC_TOKEN = "canary-key/of+anthropic-b6b6", "canary-Token/of+a-gateway-d8d8"
SECRETS = {
    "API key": KEY,
    "key by its looks": SHAPED,
    "header from the environment": HEADER,
    "password in the URL": PASSWORD,
    "key in the URL's query": QUERY,
    "password of the proxy": PROXY_PASSWORD,
    "AWS key id": AWS_ID,
    "AWS secret": AWS_SECRET,
    "AWS session token": AWS_TOKEN,
    "bearer key of Bedrock": BEARER,
    "key of Anthropic": ANTHROPIC_KEY,
    "bearer token of Anthropic": ANTHROPIC_TOKEN,
}
HOSTILE = "=cmd|'/C calc'!A0<script>canary()</script>"
"""What a server may say to become a formula in a spreadsheet or a script in a page."""

quoted = urllib.parse.quote


def spellings(secret: str) -> set[bytes]:
    """How a secret may look in a file, a page or a message."""
    logins = [f"{user}:{secret}" for user in ("anna", "paula", "")]
    return {
        text.encode()
        for text in (
            secret,
            secret[:9],  # a part is too much
            quote(secret),
            urllib.parse.quote_plus(secret),
            json.dumps(secret)[1:-1],
            repr(secret)[1:-1],
            secret.replace("/", "\\/"),
            secret.replace("+", "&#43;").replace("/", "&#x2F;"),
            *(base64.b64encode(login.encode()).decode() for login in [secret, *logins]),
        )
    }


def quote(secret: str) -> str:
    return quoted(secret, safe="")


@dataclass
class Search:
    """The places that were searched, with the number of bytes in each, and what was found."""

    places: dict[str, int] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)
    marks: int = 0

    def verdict(self) -> str:
        """What was found since the last verdict."""
        found, self.found = self.found, []
        return "\n".join(found)

    def look(self, place: str, content: bytes) -> None:
        self.places[place] = self.places.get(place, 0) + len(content)
        self.marks += content.count(b"[redacted]")
        if (place.endswith(".html") or b"<!doctype html" in content[:200].lower()) and b"<script>canary" in content:
            self.found.append(f"{place}: a script of the server's")
        if place.endswith((".csv", "/csv")):
            cells = [cell for row in csv.reader(io.StringIO(content.decode())) for cell in row]
            self.found += [f"{place}: a formula: {cell[:80]}" for cell in cells if cell.startswith(("=", "+", "@"))]
        for name, secret in SECRETS.items():
            for spelling in spellings(secret):
                at = content.find(spelling)
                if at >= 0:
                    around = content[max(0, at - 150) : at + len(spelling) + 40]
                    self.found.append(f"{place}: {name}: ...{around.decode('utf-8', 'replace')}...")

    def look_into(self, run: str, folder: Path) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.look(f"{run}: file {path.relative_to(folder)}", path.read_bytes())


@dataclass
class Surroundings:
    """Where a run happens."""

    folder: Path
    environment: dict[str, str]
    locustfile: Path = LOCUSTFILE

    def command(self, *arguments: str) -> list[str]:
        return [
            LOCUST, "-f", str(self.locustfile), "--loglevel", "DEBUG", "--llm-model", "tiny", "--csv", "out/run",
            "--csv-full-history", "--html", "out/report.html", "--llm-header-env", "X-Gateway=GATEWAY_TOKEN",
            "--llm-report", "--llm-chunk-times",
            "--stop-timeout", "2", "-u", "2", "-r", "2", *arguments,
        ]  # fmt: skip

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment, capture_output=True, timeout=90,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip


def through_proxy(proxy: ForwardProxy) -> str:
    return f"http://paula:{quote(PROXY_PASSWORD)}@localhost:{proxy.port}"


def checked(search: Search, run: str, surroundings: Surroundings, done: subprocess.CompletedProcess[bytes]) -> None:
    search.look(f"{run}: stdout", done.stdout)
    search.look(f"{run}: stderr (log at DEBUG)", done.stderr)
    search.look_into(run, surroundings.folder)
    found = search.verdict()
    assert not found, found


PAGES = (
    "/", "/stats/requests", "/stats/report", "/stats/report?download=1", "/stats/requests/csv", "/stats/failures/csv",
    "/stats/requests_full_history/csv", "/exceptions", "/exceptions/csv", "/tasks", "/logs", "/worker-count",
)  # fmt: skip


def fetched(url: str, data: dict[str, str] | None = None) -> bytes:
    body = urllib.parse.urlencode(data).encode() if data is not None else None
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=10) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        return error.read()


def wait_for(condition: object, within_s: float = 25.0) -> None:
    limit = time.monotonic() + within_s
    while True:
        try:
            if condition():  # type: ignore[operator]
                return
        except (OSError, ValueError, KeyError, IndexError):
            pass
        assert time.monotonic() < limit, "it never came true"
        time.sleep(0.2)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and make it."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
