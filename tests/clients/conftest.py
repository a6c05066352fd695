"""A gateway for client libraries: of a cluster, or one on the loopback interface.

The libraries are not among the packages of the other tests: see `make test-clients`.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client_stack import COMMAND, Address, llama_server, run_stack

URL = "SLOTKEEPER_GATEWAY_URL"
"""Environment variable with the address of a gateway in front of the servers of client_servers."""
REMEDY = f"Install llama.cpp, or set {COMMAND} to the command of llama-server, or {URL}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore the warnings of the libraries, which are not about the gateway."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def gateway() -> Iterator[Address]:
    url = os.environ.get(URL)
    if url:
        yield Address(url)
        return
    command = llama_server()
    if command is None:
        pytest.skip(f"missing: llama-server. {REMEDY}")
    with run_stack(command) as stack:
        yield Address(stack.url, stack=stack)


@pytest.fixture
def asleep(gateway: Address) -> None:
    """The server that is at zero has no replica. On a cluster only the first test wakes it."""
    if gateway.stack:
        gateway.stack.sleep()


@pytest.fixture
def wait_idle(gateway: Address) -> Callable[[], None]:
    """Wait until the gateway forwards no request; without effect on a cluster."""
    return gateway.stack.wait_idle if gateway.stack else lambda: None


@pytest.fixture
def broken(gateway: Address) -> None:
    """Skip a test that needs a server which fails in the middle of a stream."""
    if gateway.stack is None:
        pytest.skip("needs a broken server, which only the local stack has")
