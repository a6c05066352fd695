"""Errors in the format of the API that a path belongs to."""

import json
from typing import Any

import pytest

from slotkeeper.edge.error_format import error_response
from slotkeeper.wire.errors import HttpError


def body(status: int, path: bytes) -> Any:
    error = HttpError(status, "some_code", "what is wrong", retry_after=3)
    response = error_response(error, path)
    assert response.status == status
    assert (b"Retry-After", b"3") in response.headers
    return json.loads(response.body)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "request_too_large"),
        (415, "invalid_request_error"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
@pytest.mark.parametrize(
    "path", [b"/v1/messages", b"/v1/messages/count_tokens", b"/models/a/b/v1/messages"]
)
def test_anthropics_paths_have_its_types(status: int, kind: str, path: bytes) -> None:
    error = {"type": kind, "message": "what is wrong", "code": "some_code"}
    assert body(status, path) == {"type": "error", "error": error}


def test_ollamas_paths_have_a_text() -> None:
    assert body(404, b"/api/chat") == {"error": "what is wrong"}


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/", b"/messages", b"/apis"])
def test_all_other_paths_have_openais_format(path: bytes) -> None:
    error = {"message": "what is wrong", "type": "not_found_error", "code": "some_code"}
    assert body(404, path) == {"error": error}
