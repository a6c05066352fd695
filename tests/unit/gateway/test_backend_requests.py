"""What is sent to an external backend, and what passes through of its responses."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.edge.model_field import Replacement
from slotkeeper.gateway.backends import requests, responses
from slotkeeper.gateway.backends.health import MAX_FAILURES, BackendHealth
from slotkeeper.gateway.target_config import Backend
from slotkeeper.wire.client import parse_head
from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import Headers, Request

BACKEND = Backend("up", tls=True, host="api.example.com", port=443, path="/openai/v1")


def request(
    body: bytes, *, headers: Headers | None = None, path: bytes = b"/v1/chat/completions"
) -> Request:
    parts = [body[at : at + 7] for at in range(0, len(body), 7)]
    return Request(b"POST", path, headers or [], True, True, parts, len(body))


def rewritten(message: Request, model: str) -> bytes:
    parts, size = asyncio.run(requests.with_model(message, model, asyncio.Lock()))
    assert size == sum(map(len, parts))
    return b"".join(parts)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"a","x":1}', b'{"model":"up/b","x":1}'),
        (b'{"x":{"model":"a"},"model" : "a" }', b'{"x":{"model":"a"},"model" : "up/b" }'),
        (b'{"model":"a\\"\\\\"}', b'{"model":"up/b"}'),
        (b'{"mod\\u0065l":null,"a":[]}', b'{"mod\\u0065l":"up/b","a":[]}'),
        (b'{"messages":[]}', b'{"model":"up/b","messages":[]}'),
        (b" { } ", b' {"model":"up/b" } '),
        (b'\xef\xbb\xbf{"a":1}', b'\xef\xbb\xbf{"model":"up/b","a":1}'),
    ],
)
def test_the_model_in_a_body_is_that_of_the_backend(body: bytes, expected: bytes) -> None:
    assert rewritten(request(body), "up/b") == expected


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'{"model":1}', "invalid_model"),
        (b'{"model":nul', "invalid_json"),
        (b'{"model":"a","model":"b"}', "ambiguous_model"),
        # Go's JSON package reads both, and the last one counts.
        (b'{"model":"a","Model":"b"}', "ambiguous_model"),
        (b'{"MODEL":"b"}', "ambiguous_model"),
        (b'{"model":"a","x":"%s","mod\\u0045l":"b"}' % (b"x" * 70_000), "ambiguous_model"),
        (b'{"a":' + b"[" * 10_000, "nested_too_deeply"),
    ],
)
def test_a_body_that_names_no_model_clearly_is_rejected(body: bytes, code: str) -> None:
    with pytest.raises(HttpError) as error:
        rewritten(request(body), "b")

    assert (error.value.status, error.value.code) == (400, code)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


# Names such as MODEL are rejected.
names = st.text(max_size=5).filter(lambda name: name == "model" or name.lower() != "model")


@given(st.dictionaries(names, json_values), st.text(max_size=9), st.booleans())
def test_nothing_else_in_a_body_changes(tree: dict[str, Any], model: str, escaped: bool) -> None:
    body = json.dumps({**tree, "model": "a"}, ensure_ascii=escaped).encode()

    assert json.loads(rewritten(request(body), model)) == {**tree, "model": model}

    body = json.dumps({name: tree[name] for name in tree if name != "model"}).encode()
    assert json.loads(rewritten(request(body), model)) == {**tree, "model": model}


FORM = [(b"Content-Type", b"multipart/form-data; boundary=b")]


def test_the_model_in_a_form_is_that_of_the_backend() -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
    rest = b'\r\n--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nxyz\r\n--b--\r\n'

    assert rewritten(request(head + b"a" + rest, headers=FORM), "b") == head + b"b" + rest
    # A form that names none.
    assert rewritten(request(rest[2:], headers=FORM), "b") == head + b"b" + rest
    with pytest.raises(HttpError, match="the body is not a plain form"):
        rewritten(request(b"xyz", headers=FORM), "b")


MODEL = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\na\r\n'


@pytest.mark.parametrize(
    "body",
    [
        MODEL + b"--b\r\nContent-Disposition: form-data; name*=UTF-8''model\r\n\r\nx\r\n--b--",
        MODEL + b'--b\r\nContent-Disposition: form-data; name="mo\\del"\r\n\r\nx\r\n--b--',
        MODEL + b'--b\r\nContent-Disposition: form-data; name = "model"\r\n\r\nx\r\n--b--',
        MODEL + b'--b\r\nContent-Disposition: form-data;\r\n name="model"\r\n\r\nx\r\n--b--',
        MODEL + b"--b\r\nX: %s\r\n%s--b--" % (b"x" * 5_000, MODEL[5:]),
        MODEL + b'--b\r\nContent-Disposition: form-data; name="a"; filename="\\"; name=\\"model"'
        b"\r\n\r\nx\r\n--b--",
        b'--b\nContent-Disposition: form-data; name="model"\n\nx\n--b--\n',
        MODEL + MODEL[:-2] + b"--b--",
        MODEL + b"--bx\r\n\r\n\r\n--b--",
        b"x\r\n" + MODEL + b"--b--",
    ],
    ids=range(10),
)
def test_a_form_that_two_parsers_may_read_differently_is_rejected(body: bytes) -> None:
    with pytest.raises(HttpError) as error:
        rewritten(request(body, headers=FORM), "b")

    assert (error.value.status, error.value.code) == (400, "invalid_form")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([(b"Content-Type", b"multipart/form-data; xboundary=a; boundary=b")], "invalid_form"),
        ([*FORM, (b"content-type", b"multipart/form-data; boundary=a")], "bad_request"),
    ],
)
def test_a_form_with_two_boundaries_is_rejected(
    headers: list[tuple[bytes, bytes]], code: str
) -> None:
    with pytest.raises(HttpError) as error:
        rewritten(request(MODEL + b"--b--", headers=headers), "b")

    assert error.value.code == code


@pytest.mark.parametrize(
    "part",
    [
        b'name="file"; filename="a \xc3\xa9.wav"\r\nContent-Type: audio/wav',
        b'name="file"; filename="a.wav"; filename*=UTF-8\'\'%C3%A9.wav',
        b'name="timestamp_granularities[]"',
        b"name=language\r\nContent-Length: 1",
    ],
)
def test_forms_of_usual_clients_are_accepted(part: bytes) -> None:
    rest = b"--b\r\nContent-Disposition: form-data; %s\r\n\r\n\r\n--x\r\n\r\n--b--\r\n" % part

    body = rewritten(request(MODEL + rest, headers=FORM), "up")
    assert body == MODEL[:-3] + b"up\r\n" + rest


@given(st.binary(max_size=30), st.data())
def test_a_change_is_applied_to_any_parts(body: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=4)))
    parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if a < b]
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, len(body)))

    changed = requests.changed(parts, Replacement(start, end, b"new"))

    assert b"".join(changed) == (body[:start] + b"new" + body[end:] if body else b"")


def test_the_head_has_the_backends_key_and_nothing_that_identifies_the_client() -> None:
    headers = [
        (b"Host", b"llm"),
        (b"Authorization", b"Bearer of-the-client"),
        (b"X-Api-Key", b"of-the-client"),
        (b"Cookie", b"a=b"),
        (b"User-Agent", b"client"),
        (b"Accept-Encoding", b"gzip"),
        (b"X-Priority", b"9"),
        (b"X-Forwarded-For", b"10.0.0.9"),
        (b"Content-Type", b"application/json"),
        (b"X-Request-Id", b"7"),
    ]
    message = request(b"{}", headers=headers, path=b"/v1/chat/completions?a=b")

    head = requests.encode_head(message, BACKEND, b"sk-1", 9)

    assert head.split(b"\r\n") == [
        b"POST /openai/v1/chat/completions?a=b HTTP/1.1",
        b"Host: api.example.com",
        b"Content-Type: application/json",
        b"X-Request-Id: 7",
        b"Accept-Encoding: identity",
        b"User-Agent: slotkeeper",
        b"Via: 1.1 slotkeeper",
        b"Authorization: Bearer sk-1",
        b"Content-Length: 9",
        b"",
        b"",
    ]


@pytest.mark.parametrize(
    ("backend", "host"),
    [
        (Backend("a", tls=False, host="x", port=80, path=""), "x"),
        (Backend("a", tls=False, host="x", port=8000, path=""), "x:8000"),
        (Backend("a", tls=True, host="::1", port=443, path=""), "[::1]"),
        (Backend("a", tls=True, host="::1", port=80, path=""), "[::1]:80"),
    ],
)
def test_the_port_is_in_the_host_header_if_it_is_not_the_default(
    backend: Backend, host: str
) -> None:
    assert backend.authority == host


def test_only_harmless_headers_of_a_response_pass_through() -> None:
    lines = [
        "HTTP/1.1 200 OK",
        "Server: vllm",
        "Set-Cookie: session=1",
        "Access-Control-Allow-Origin: *",
        "Access-Control-Allow-Credentials: true",
        "Strict-Transport-Security: max-age=9",
        "X-Ratelimit-Remaining-Tokens: 5",
        "Openai-Organization: ours",
        "X-Slotkeeper-Key-Name: ann",
        "X-Model-Served: lie",
        "Content-Type: application/json",
        "Content-Length: 2",
        "X-Request-Id: 7",
    ]
    head = parse_head("\r\n".join([*lines, "", ""]).encode())

    passed = responses.filtered(head)

    assert [name for name, _ in passed.headers] == [
        b"Content-Type",
        b"Content-Length",
        b"X-Request-Id",
    ]


def test_an_error_is_passed_on_without_the_key() -> None:
    text = (
        b"HTTP/1.1 400 Bad sk-1\r\nContent-Type: text/sk-1\r\n"
        b"Retry-After: 3\r\nSet-Cookie: a\r\n\r\n"
    )

    response = responses.error_response(parse_head(text), b"bad key sk-1, sk-1", b"sk-1")

    assert response
    assert response.body == b"bad key [redacted], [redacted]"
    assert response.content_type == b"text/[redacted]"
    assert response.headers == [(b"Retry-After", b"3")]


def test_a_compressed_error_is_not_passed_on() -> None:
    text = b"HTTP/1.1 400 Bad\r\nContent-Encoding: gzip\r\n\r\n"

    assert responses.error_response(parse_head(text), b"\x1f\x8b", b"sk-1") is None


def test_a_backend_is_paused_for_longer_after_each_further_failure() -> None:
    health = BackendHealth()
    now = 100.0
    pauses = []
    for _ in range(12):
        health.failed(now)
        pauses.append(health.pause(now))
        if pauses[-1]:
            health.failed(now)  # of a request that was sent before
        now += health.pause(now)

    assert pauses[: MAX_FAILURES + 2] == [0, 0, 1, 2, 4]
    assert pauses[-1] == 30
    assert sorted(pauses) == pauses
    health.succeeded()
    health.failed(now)
    assert health.pause(now) == 0
