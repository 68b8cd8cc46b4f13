"""Headers that pass a trace to the server, in the bytes of a request."""

from __future__ import annotations

from llm_users.transport.exchange import with_trace_headers

HEADERS = (("traceparent", "00-1-2-01"), ("tracestate", "a=b"))


def test_headers_follow_the_request_line() -> None:
    request = b"POST /v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 22\r\n\r\n\r\ntraceparent: of body\r\n"
    assert with_trace_headers(request, HEADERS) == (
        b"POST /v1 HTTP/1.1\r\ntraceparent: 00-1-2-01\r\ntracestate: a=b\r\nHost: x\r\nContent-Length: 22\r\n\r\n"
        b"\r\ntraceparent: of body\r\n"
    )


def test_a_header_of_the_user_is_not_replaced() -> None:
    for head in (b"TraceParent: mine\r\nHost: x", b"Host: x\r\ntraceparent: mine"):
        request = b"GET / HTTP/1.1\r\n" + head + b"\r\n\r\n"
        assert with_trace_headers(request, HEADERS) == request
