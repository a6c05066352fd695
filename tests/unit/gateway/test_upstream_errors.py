"""The messages of errors for servers that fail."""

from slotkeeper.gateway.models import Model
from slotkeeper.gateway.upstream_errors import unreachable


def test_an_unreachable_server_results_in_the_message_of_its_state() -> None:
    model = Model("one", "one", "uid", 1, 0, "Failed", "spec.suspend is true")

    error = unreachable(model, ConnectionRefusedError(111, "Connection refused"))

    assert "model one, which is Failed (spec.suspend is true): Connection refused" in error.message
