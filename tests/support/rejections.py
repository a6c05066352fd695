"""Specs that both the API server and the operator reject."""

from typing import Any

from apiserver import ApiServer
from llamaservers import parsed, raw_server
from slotkeeper.api.server import InvalidSpec

PATH = "/apis/slotkeeper.dev/v1alpha1/namespaces/default/llamaservers"


def assert_rejected(api: ApiServer, spec: dict[str, Any], field: str, message: str) -> None:
    """Both reject the spec; the API server's error has this field and this message."""
    raw = raw_server(**spec)

    error = rejection(api, raw)

    assert error is not None
    assert field in error
    assert message in error
    assert not is_accepted_by_the_operator(raw)


def rejection(api: ApiServer, raw: dict[str, Any]) -> str | None:
    """The API server's error for a server; None if it accepts it."""
    response = api.post(PATH, raw, dry_run=True)
    if response.status_code == 201:
        return None
    assert response.status_code in {400, 422}, response.text
    message: str = response.json()["message"]
    return message


def is_accepted_by_the_operator(raw: dict[str, Any]) -> bool:
    """Whether the operator parses a server."""
    try:
        parsed(raw)
    except InvalidSpec:
        return False
    return True
