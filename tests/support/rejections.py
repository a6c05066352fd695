"""Specs that both the API server and the operator reject."""

from typing import Any

from apiserver import ApiServer
from llamagateways import parsed_gateway, raw_gateway
from llamaservers import parsed, raw_server
from slotkeeper.api.group import GATEWAY_KIND
from slotkeeper.api.resource import InvalidSpec

PATH = "/apis/slotkeeper.dev/v1alpha1/namespaces/default"


def assert_rejected(api: ApiServer, spec: dict[str, Any], field: str, message: str) -> None:
    """Both reject a server with this spec; the API server's error has this field and message."""
    _assert_rejected(api, raw_server(**spec), field, message)


def assert_gateway_rejected(api: ApiServer, spec: dict[str, Any], field: str, message: str) -> None:
    """The same for a gateway."""
    _assert_rejected(api, raw_gateway(**spec), field, message)


def _assert_rejected(api: ApiServer, raw: dict[str, Any], field: str, message: str) -> None:
    error = rejection(api, raw)

    assert error is not None
    assert field in error
    assert message in error
    assert not is_accepted_by_the_operator(raw)


def rejection(api: ApiServer, raw: dict[str, Any]) -> str | None:
    """The API server's error for a server or gateway; None if it accepts it."""
    response = api.post(f"{PATH}/{raw['kind'].lower()}s", raw, dry_run=True)
    if response.status_code == 201:
        return None
    assert response.status_code in {400, 422}, response.text
    message: str = response.json()["message"]
    return message


def is_accepted_by_the_operator(raw: dict[str, Any]) -> bool:
    """Whether the operator parses a server or gateway."""
    try:
        (parsed_gateway if raw["kind"] == GATEWAY_KIND else parsed)(raw)
    except InvalidSpec:
        return False
    return True


def is_rejected_by_the_operator_alone(raw: dict[str, Any]) -> bool:
    """Whether a server breaks the rule of gpu.computeArch that is in no schema."""
    try:
        parsed(raw)
    except InvalidSpec as error:
        return "no GPU has compute capability" in str(error)
    return False
