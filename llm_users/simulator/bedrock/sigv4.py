"""Verification of AWS Signature Version 4: recomputes the signature of a received request.

The canonical form is that of botocore's ``SigV4Auth``. The checks have the order and the texts of AWS's services:
missing header, incomplete header, scope, age, access key, signature. It does not depend on botocore or sockets.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from llm_users.simulator.bedrock.errors import ERRORS, MISSING_AUTHENTICATION, BedrockError
from llm_users.simulator.http_wire import Request

ALGORITHM = "AWS4-HMAC-SHA256"
_TERMINATOR = "aws4_request"
_STAMP = "%Y%m%dT%H%M%SZ"
_MOST_SKEW = timedelta(minutes=5)
_ISO_DATE = re.compile(r"\d{8}T\d{6}Z")
_PART = re.compile(r"([A-Za-z]+)=(.*)", re.DOTALL)


class SignatureVerifier:
    """Verifies requests that are signed with one access key. An empty ``region`` accepts every region."""

    def __init__(self, access_key: str, secret: str, region: str) -> None:
        self._access_key = access_key
        self._secret = secret
        self._region = region
        self._signing_keys: dict[tuple[str, str, str], bytes] = {}

    def refusal(self, request: Request, services: Sequence[str]) -> BedrockError | None:
        """Return the error of a request that AWS rejects, else None. The scope must name one of the services."""
        header = request.headers.get("authorization", "")
        if not header:
            return MISSING_AUTHENTICATION
        parts: dict[str, str] = {}
        for text in header.removeprefix(ALGORITHM).split(","):
            match = _PART.fullmatch(text.strip())
            if match is None:
                return _incomplete(
                    f"'{text.strip()}' not a valid key=value pair (missing equal-sign) in Authorization header."
                )
            parts[match[1]] = match[2]
        missing = [name for name in ("Credential", "Signature", "SignedHeaders") if not parts.get(name)]
        stamp = _stamp_of(request)
        if missing or stamp is None:
            needs = [f"Authorization header requires '{name}' parameter." for name in missing]
            if stamp is None:
                needs.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
            return _incomplete(" ".join(needs))
        scope = parts["Credential"].split("/")
        if len(scope) != 5:
            return _incomplete(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term."
            )
        signed = parts["SignedHeaders"].split(";")
        return (
            self._refused_scope(scope, stamp, signed, services)
            or _refused_age(stamp)
            or self._refused_signature(request, scope, stamp, signed, parts["Signature"])
        )

    def _refused_scope(
        self, scope: Sequence[str], stamp: datetime, signed: Sequence[str], services: Sequence[str]
    ) -> BedrockError | None:
        _, day, region, service, terminator = scope
        problems = []
        if self._region and region != self._region:
            problems.append(f"Credential should be scoped to a valid region, not '{region}'. ")
        if service not in services:
            problems.append(f"Credential should be scoped to correct service: '{services[0]}'. ")
        if terminator != _TERMINATOR:
            problems.append(
                f"Credential should be scoped with a valid terminator: '{_TERMINATOR}', not '{terminator}'. "
            )
        if day != f"{stamp:%Y%m%d}":
            problems.append(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
                f"'{day}' != '{stamp:%Y%m%d}', from '{stamp.strftime(_STAMP)}'. "
            )
        if "host" not in signed:
            problems.append("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization. ")
        return _invalid("".join(problems)) if problems else None

    def _refused_signature(
        self, request: Request, scope: Sequence[str], stamp: datetime, signed: Sequence[str], signature: str
    ) -> BedrockError | None:
        access_key, day, region, service, _ = scope
        if access_key != self._access_key:
            return ERRORS["unrecognized_client"]
        canonical = canonical_request(request, signed)
        text = "\n".join(
            (ALGORITHM, stamp.strftime(_STAMP), "/".join(scope[1:]), hashlib.sha256(canonical.encode()).hexdigest())
        )
        expected = hmac.new(self._signing_key(day, region, service), text.encode(), hashlib.sha256).hexdigest()
        if hmac.compare_digest(expected.encode(), signature.encode()):
            return None
        # AWS shows both texts, which include the signed headers and so the session token.
        return _invalid(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details.\n\n"
            f"The Canonical String for this request should have been\n'{canonical}'\n\n"
            f"The String-to-Sign should have been\n'{text}'\n"
        )

    def _signing_key(self, day: str, region: str, service: str) -> bytes:
        found = self._signing_keys.get((day, region, service))
        if found is None:
            if len(self._signing_keys) > 100:  # a client chooses the region
                self._signing_keys.clear()
            found = f"AWS4{self._secret}".encode()
            for text in (day, region, service, _TERMINATOR):
                found = hmac.new(found, text.encode(), hashlib.sha256).digest()
            self._signing_keys[day, region, service] = found
        return found


def canonical_request(request: Request, signed: Sequence[str]) -> str:
    """Return the canonical request with these signed headers and the hash of the body that was received."""
    headers = [f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in signed]
    pairs = sorted(pair.partition("=")[::2] for pair in request.query.split("&") if request.query)
    return "\n".join(
        (
            request.method,
            quote(_normal_path(request.path), safe="/~"),
            "&".join(f"{name}={value}" for name, value in pairs),
            "".join(headers),
            ";".join(signed),
            hashlib.sha256(request.body).hexdigest(),
        )
    )


def _normal_path(path: str) -> str:
    """Return the path without empty, ``.`` and ``..`` segments."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return f"/{'/'.join(kept)}{'/' if kept and path.endswith('/') else ''}"


def _stamp_of(request: Request) -> datetime | None:
    """Return the time of the signature, or None if the request has no valid date."""
    text = request.headers.get("x-amz-date")
    try:
        if text is not None:
            return datetime.fromisoformat(text) if _ISO_DATE.fullmatch(text) else None
        from email.utils import parsedate_to_datetime  # rarely needed, and it takes 4 ms of the start

        return parsedate_to_datetime(request.headers["date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return None


def _refused_age(stamp: datetime) -> BedrockError | None:
    now = datetime.fromtimestamp(int(time.time()), UTC)
    if abs(now - stamp) <= _MOST_SKEW:
        return None
    signed, here = stamp.strftime(_STAMP), now.strftime(_STAMP)
    if stamp < now - _MOST_SKEW:
        earliest = (now - _MOST_SKEW).strftime(_STAMP)
        return _invalid(f"Signature expired: {signed} is now earlier than {earliest} ({here} - 5 min.)")
    latest = (now + _MOST_SKEW).strftime(_STAMP)
    return _invalid(f"Signature not yet current: {signed} is still later than {latest} ({here} + 5 min.)")


def _invalid(message: str) -> BedrockError:
    return BedrockError("InvalidSignatureException", 403, message)


def _incomplete(message: str) -> BedrockError:
    return BedrockError("IncompleteSignatureException", 403, message)
