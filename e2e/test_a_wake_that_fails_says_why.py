"""A request that wakes a server in vain is told why, in time; when that is mended, it is served."""

import json
from typing import Any

from servers import QUICK, Server, spec

TO_ZERO = {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 1}
MISSING = QUICK.replace("quick", "missing")


def test_a_model_that_cannot_be_had_is_named_within_half_a_minute(server: Server) -> None:
    server.apply(spec(MISSING, autoscaling=TO_ZERO))
    server.wait("condition=BalancerReady")

    status, headers, error = _asked(server, seconds=45)

    assert (status, error["code"]) == (503, "cannot_start")
    assert MISSING in error["message"]
    assert "404" in error["message"]
    assert int(headers["retry-after"]) > 0

    server.apply(spec(autoscaling=TO_ZERO))
    [ending] = server.chat()

    assert ending["answered"], ending


def test_a_wake_that_failed_is_tried_anew(server: Server) -> None:
    server.apply(spec(MISSING, autoscaling=TO_ZERO))
    server.wait("condition=BalancerReady")
    codes = []
    for _ in range(2):
        _, _, error = _asked(server, seconds=45)
        codes.append(error["code"])
        server.wait_until_asleep()

    ups = [made for made in server.get()["status"]["scaling"]["decisions"] if made["after"] == 1]

    assert codes == ["cannot_start"] * 2
    assert len(ups) == 2


def _asked(server: Server, *, seconds: int) -> tuple[int, dict[str, str], dict[str, Any]]:
    """The status, the headers and the error of an answer that comes within so many seconds."""
    told = server.cluster.read(
        *("run", "curl", "--silent", "--show-error", "--include", "--max-time", str(seconds)),
        *("--data", json.dumps({"prompt": "hello"}), f"{server.url}/completion"),
    )
    head, _, body = told.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.splitlines()
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return int(first.split()[1]), headers, json.loads(body)["error"]
