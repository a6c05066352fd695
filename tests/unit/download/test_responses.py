import pytest

from download_harness import DownloadHarness
from model_host import GGUF, SHA256, ModelHost, content, redirect, status
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.download import RetryPolicy

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


@pytest.mark.parametrize("code", [500, 503, 429, 408])
def test_a_server_error_is_retried_with_back_off(
    host: ModelHost, harness: DownloadHarness, code: int
) -> None:
    host.respond_with(status(code))

    error = harness.download_error(host.url)

    assert error.reason is Reason.MODEL_SERVER_ERROR
    assert str(code) in error.message
    assert harness.delays == [1, 2, 4, 8, 16]


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
