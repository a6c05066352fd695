from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from download_harness import DownloadHarness
from model_host import GGUF, SHA256, ModelHost, Reply, content, redirect, status
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.download import RetryPolicy
from slotkeeper.download.transfer import new_client

SET_A_TOKEN = "set spec.model.tokenSecretRef to a Secret with a token"


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        (404, Reason.MODEL_NOT_FOUND, "404 Not Found"),
        (410, Reason.MODEL_NOT_FOUND, "410 Gone"),
        (401, Reason.MODEL_FORBIDDEN, f"401 Unauthorized: {SET_A_TOKEN}"),
        (403, Reason.MODEL_FORBIDDEN, f"403 Forbidden: {SET_A_TOKEN}"),
        (400, Reason.MODEL_DOWNLOAD_REJECTED, "400 Bad Request"),
        (304, Reason.MODEL_DOWNLOAD_REJECTED, "304 Not Modified"),
        (416, Reason.MODEL_DOWNLOAD_REJECTED, "416 Requested Range Not Satisfiable"),
    ],
)
def test_a_permanent_error_is_reported_once_with_url_and_status(
    host: ModelHost, harness: DownloadHarness, code: int, reason: Reason, message: str
) -> None:
    host.respond_with(status(code))

    error = harness.download_error(host.url)

    assert (error.reason, error.message) == (reason, f"GET {host.url} returned {message}")
    assert len(host.requests) == 1
    assert harness.delays == []


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "60"},
        {
            "Retry-After": "Sun, 29 Nov 2026 12:01:00 GMT",
            "Date": "Sun, 29 Nov 2026 12:00:00 GMT",
        },
    ],
    ids=["seconds", "date"],
)
def test_retry_after_is_added_to_the_back_off(
    host: ModelHost, harness: DownloadHarness, code: int, headers: dict[str, str]
) -> None:
    host.respond_with(dated(code, headers), dated(code, headers), content())

    harness.download(host.url, SHA256)

    assert harness.delays == [61, 62]


@pytest.mark.parametrize(
    "value", ["", "-1", "1.5", "soon", "9" * 30, "Sun, 29 Nov 2026 11:59:00 GMT", "¹"]
)
def test_an_invalid_or_past_retry_after_is_ignored(
    host: ModelHost, harness: DownloadHarness, value: str
) -> None:
    date = "Sun, 29 Nov 2026 12:00:00 GMT"
    host.respond_with(dated(429, {"Retry-After": value, "Date": date}), content())

    harness.download(host.url, SHA256)

    assert harness.delays == [1]


def test_a_retry_after_of_hours_ends_the_container_with_its_reason(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(status(429, **{"Retry-After": "86400"}))

    error = harness.download_error(host.url)

    assert (error.reason, error.retry_after) == (Reason.MODEL_SERVER_ERROR, 86400)
    assert harness.delays == []


SIGNED = "?X-Amz-Signature=SECRET&X-Amz-Date=20261129T100000Z&X-Amz-Expires=3600"
SIGN_AGAIN = ", sign the URL again, or use one that does not expire"


@pytest.mark.parametrize(
    ("query", "advice"),
    [
        (SIGNED, f": the signed URL expired at 2026-11-29T11:00:00Z{SIGN_AGAIN}"),
        (
            "?X-Goog-Signature=SECRET&X-Goog-Date=20261129T100000Z&X-Goog-Expires=60",
            f": the signed URL expired at 2026-11-29T10:01:00Z{SIGN_AGAIN}",
        ),
        (
            "?sv=2024&se=2026-11-29T09%3A00%3A00Z&sig=SECRET",
            f": the signed URL expired at 2026-11-29T09:00:00Z{SIGN_AGAIN}",
        ),
        (
            "?Expires=1795946400&Signature=SECRET&Key-Pair-Id=K",
            f": the signed URL expired at 2026-11-29T10:00:00Z{SIGN_AGAIN}",
        ),
        (
            SIGNED.replace("3600", "36000"),
            f": the signature in the URL is not accepted{SIGN_AGAIN}",
        ),
        (
            "?se=0001-01-01T00%3A00%3A00%2B23%3A59&sig=SECRET",
            f": the signature in the URL is not accepted{SIGN_AGAIN}",
        ),
        (
            SIGNED.replace("3600", "soon"),
            f": the signature in the URL is not accepted{SIGN_AGAIN}",
        ),
        ("?download=true", f": {SET_A_TOKEN}"),
    ],
)
def test_a_403_for_a_signed_url_gets_advice_that_fits(
    host: ModelHost, harness: DownloadHarness, query: str, advice: str
) -> None:
    host.respond_with(dated(403, {"Date": "Sun, 29 Nov 2026 12:00:00 GMT"}))

    error = harness.download_error(host.url + query)

    assert error.reason is Reason.MODEL_FORBIDDEN
    assert error.message == f"GET {host.url} returned 403 Forbidden{advice}"


def test_a_redirect_to_an_expired_signature_is_tried_again_for_a_new_one(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(redirect(f"/cdn.gguf{SIGNED}"), status(403), content())

    harness.download(host.url, SHA256)

    assert harness.delays == [1]


@pytest.mark.parametrize("code", [500, 503, 429, 408])
def test_a_server_error_is_retried_with_back_off(
    host: ModelHost, harness: DownloadHarness, code: int
) -> None:
    host.respond_with(status(code))

    error = harness.download_error(host.url)

    assert error.reason is Reason.MODEL_SERVER_ERROR
    assert str(code) in error.message
    assert harness.delays == [1, 2, 4, 8, 16]


def test_a_signed_url_with_a_token_gets_advice_that_fits(host: ModelHost, path: Path) -> None:
    host.respond_with(status(400))
    signed = host.url.replace("//", "//user:SECRET@") + SIGNED

    with new_client() as client:
        error = DownloadHarness(client, path).download_error(signed)

    assert error.message.endswith(
        "400 Bad Request: a signed URL needs no token: remove spec.model.tokenSecretRef"
    )


def dated(code: int, headers: dict[str, str]) -> Reply:
    """Respond with a status and these headers, without a Date of its own."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response_only(code)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return reply


def test_a_server_that_recovers_serves_the_model(host: ModelHost, harness: DownloadHarness) -> None:
    host.respond_with(status(503), status(503), content())

    harness.download(host.url, SHA256)

    assert harness.path.read_bytes() == GGUF


def test_each_new_byte_resets_the_number_of_failures(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(*[content(cut=1)] * 20, content())

    harness.download(host.url, SHA256)

    assert harness.delays == [1.0] * 20


def test_a_byte_for_each_try_is_no_progress_for_long(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(cut=1))

    error = harness.download_error(host.url)

    assert error.reason is Reason.MODEL_DOWNLOAD_INCOMPLETE
    assert harness.delays == [1.0] * 60 + [2.0, 4.0, 8.0, 16.0]


def test_restarts_from_the_first_byte_are_no_progress(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(content(etag=None, cut=99))

    assert harness.download_error(host.url).reason is Reason.MODEL_DOWNLOAD_INCOMPLETE
    assert len(host.requests) == RetryPolicy().tries


def test_an_unreachable_server_is_retried(harness: DownloadHarness) -> None:
    error = harness.download_error("http://127.0.0.1:1/model.gguf")

    assert error.reason is Reason.MODEL_UNREACHABLE
    assert error.message.startswith("GET http://127.0.0.1:1/model.gguf failed: ")
    assert len(harness.delays) == RetryPolicy().tries - 1


def test_a_redirect_is_followed_and_reported_if_its_target_fails(
    host: ModelHost, harness: DownloadHarness
) -> None:
    host.respond_with(redirect("/elsewhere.gguf"), content())
    harness.download(host.url)
    assert harness.path.read_bytes() == GGUF

    host.respond_with(redirect("/gone.gguf?token=SECRET"), status(404))
    error = harness.download_error(host.url + "?other")

    target = host.url.replace("model", "gone")
    assert error.message == f"GET {host.url} (redirected to {target}) returned 404 Not Found"


def test_a_redirect_loop_ends(host: ModelHost, harness: DownloadHarness) -> None:
    host.respond_with(redirect(host.url))

    error = harness.download_error(host.url)

    assert error.reason is Reason.MODEL_TOO_MANY_REDIRECTS
    assert len(host.requests) == 6


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/model.gguf", "gopher://127.0.0.1/x"]
)
def test_a_redirect_to_another_scheme_is_rejected(
    host: ModelHost, harness: DownloadHarness, location: str
) -> None:
    host.respond_with(redirect(location))

    error = harness.download_error(host.url)

    assert error.reason is Reason.MODEL_URL_NOT_ALLOWED
    assert "http://HOST/PATH or https://HOST/PATH" in error.message


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "model.gguf", "http:///model", "http://a:b/", "http://[::/"]
)
def test_a_url_that_is_not_http_is_rejected(harness: DownloadHarness, url: str) -> None:
    assert harness.download_error(url).reason is Reason.MODEL_URL_NOT_ALLOWED


def test_credentials_stay_with_the_host_that_they_are_for(
    host: ModelHost, harness: DownloadHarness
) -> None:
    elsewhere = host.url.replace("127.0.0.1", "localhost")
    host.respond_with(redirect("/again.gguf"), redirect(elsewhere), content())

    harness.download(host.url.replace("//", "//user:SECRET@"))

    assert [bool(headers["Authorization"]) for headers in host.requests] == [True, True, False]
