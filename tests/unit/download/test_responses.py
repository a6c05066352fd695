import pytest

from download_world import World
from model_host import GGUF, SHA256, ModelHost, content, redirect, status
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.download import RetryPolicy

NAME_A_TOKEN = "name a Secret with a token in spec.model.tokenSecretRef"


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (404, Reason.MODEL_NOT_FOUND, "404 Not Found"),
        (410, Reason.MODEL_NOT_FOUND, "410 Gone"),
        (401, Reason.MODEL_FORBIDDEN, f"401 Unauthorized: {NAME_A_TOKEN}"),
        (403, Reason.MODEL_FORBIDDEN, f"403 Forbidden: {NAME_A_TOKEN}"),
        (400, Reason.MODEL_DOWNLOAD_REJECTED, "400 Bad Request"),
        (304, Reason.MODEL_DOWNLOAD_REJECTED, "304 Not Modified"),
        (416, Reason.MODEL_DOWNLOAD_REJECTED, "416 Requested Range Not Satisfiable"),
    ],
)
def test_a_permanent_error_is_reported_once_with_url_and_status(
    host: ModelHost, world: World, code: int, reason: Reason, words: str
) -> None:
    host.answers(status(code))

    error = world.fails(host.url)

    assert (error.reason, error.message) == (reason, f"GET {host.url} answered {words}")
    assert len(host.asked) == 1
    assert world.waits == []


@pytest.mark.parametrize("code", [500, 503, 429, 408])
def test_a_server_error_is_retried_with_back_off(host: ModelHost, world: World, code: int) -> None:
    host.answers(status(code))

    error = world.fails(host.url)

    assert error.reason is Reason.MODEL_SERVER_ERROR
    assert str(code) in error.message
    assert world.waits == [1, 2, 4, 8, 16]


def test_a_server_that_recovers_serves_the_model(host: ModelHost, world: World) -> None:
    host.answers(status(503), status(503), content())

    world.fetch(host.url, SHA256)

    assert world.path.read_bytes() == GGUF


def test_each_new_byte_resets_the_number_of_failures(host: ModelHost, world: World) -> None:
    host.answers(*[content(cut=1)] * 20, content())

    world.fetch(host.url, SHA256)

    assert world.waits == [1.0] * 20


def test_restarts_from_the_first_byte_are_no_progress(host: ModelHost, world: World) -> None:
    host.answers(content(etag=None, cut=99))

    assert world.fails(host.url).reason is Reason.MODEL_DOWNLOAD_INCOMPLETE
    assert len(host.asked) == RetryPolicy().tries


def test_an_unreachable_server_is_retried(world: World) -> None:
    error = world.fails("http://127.0.0.1:1/model.gguf")

    assert error.reason is Reason.MODEL_UNREACHABLE
    assert error.message.startswith("GET http://127.0.0.1:1/model.gguf got no answer: ")
    assert len(world.waits) == RetryPolicy().tries - 1


def test_a_redirect_is_followed_and_reported_if_its_target_fails(
    host: ModelHost, world: World
) -> None:
    host.answers(redirect("/elsewhere.gguf"), content())
    world.fetch(host.url)
    assert world.path.read_bytes() == GGUF

    host.answers(redirect("/gone.gguf?token=SECRET"), status(404))
    error = world.fails(host.url + "?other")

    there = host.url.replace("model", "gone")
    assert error.message == f"GET {host.url} (redirected to {there}) answered 404 Not Found"


def test_a_redirect_loop_ends(host: ModelHost, world: World) -> None:
    host.answers(redirect(host.url))

    error = world.fails(host.url)

    assert error.reason is Reason.MODEL_TOO_MANY_REDIRECTS
    assert len(host.asked) == 6


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/model.gguf", "gopher://127.0.0.1/x"]
)
def test_a_redirect_to_another_scheme_is_rejected(
    host: ModelHost, world: World, location: str
) -> None:
    host.answers(redirect(location))

    error = world.fails(host.url)

    assert error.reason is Reason.MODEL_URL_NOT_ALLOWED
    assert "http://HOST/PATH or https://HOST/PATH" in error.message


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "model.gguf", "http:///model", "http://a:b/", "http://[::/"]
)
def test_a_url_that_is_not_http_is_rejected(world: World, url: str) -> None:
    assert world.fails(url).reason is Reason.MODEL_URL_NOT_ALLOWED


def test_credentials_stay_with_the_host_that_they_are_for(host: ModelHost, world: World) -> None:
    elsewhere = host.url.replace("127.0.0.1", "localhost")
    host.answers(redirect("/again.gguf"), redirect(elsewhere), content())

    world.fetch(host.url.replace("//", "//user:SECRET@"))

    assert [bool(asked["Authorization"]) for asked in host.asked] == [True, True, False]
