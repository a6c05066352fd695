from slotkeeper.wire.errors import HttpError
from slotkeeper.wire.message import (
    Request,
    Response,
    ResponseHead,
    encode_request_head,
    encode_response,
    encode_response_head,
)


def test_a_request_is_forwarded_with_the_headers_to_forward_and_one_length() -> None:
    request = Request(
        b"POST",
        b"/completion?a=b",
        [
            (b"Host", b"a"),
            (b"Authorization", b"Bearer x"),
            (b"connection", b"close, X-Mine, Content-Length"),
            (b"X-Mine", b"1"),
            (b"Expect", b"100-continue"),
            (b"Upgrade", b"h2c"),
            (b"Transfer-Encoding", b"chunked"),
            (b"X-Other", b"2"),
            (b"Cookie", b"3"),
        ],
        http11=True,
        keep_alive=False,
        parts=[b"hel", b"lo"],
        size=5,
    )

    forwarded = frozenset((b"authorization", b"x-mine", b"x-other"))
    assert encode_request_head(request, forwarded) == (
        b"POST /completion?a=b HTTP/1.1\r\n"
        b"Host: a\r\nAuthorization: Bearer x\r\nX-Other: 2\r\nContent-Length: 5\r\n\r\n"
    )


def test_a_response_is_forwarded_without_its_hop_by_hop_headers() -> None:
    head = ResponseHead(
        200,
        b"Fine",
        [
            (b"Server", b"llama.cpp"),
            (b"Keep-Alive", b"timeout=5, max=100"),
            (b"Connection", b"close"),
            (b"Content-Length", b"5"),
        ],
        http11=True,
    )

    assert encode_response_head(head, chunked=False, connection=None) == (
        b"HTTP/1.1 200 Fine\r\nServer: llama.cpp\r\nContent-Length: 5\r\n\r\n"
    )


def test_a_response_without_content_has_no_length() -> None:
    assert encode_response(Response(204)) == b"HTTP/1.1 204 No Content\r\n\r\n"


def test_an_error_response_has_the_format_of_openai() -> None:
    response = HttpError(429, "queue_full", "queue is full", retry_after=0.2).response()

    assert response.body == (
        b'{"error":{"message":"queue is full","type":"rate_limit_error","code":"queue_full"}}'
    )
    assert response.headers == [(b"Retry-After", b"1")]
