"""When a client disconnects in mid-stream, its slot is released for the next request at once."""

import json

from servers import SLOW, Server, spec


def test_a_client_disconnect_releases_its_slot(server: Server) -> None:
    server.ready(spec(SLOW, slots=1, contextPerSlot=8192))
    # Tokens for half a minute; the client disconnects after three seconds.
    body = {"prompt": "x", "n_predict": 8000, "stream": True, "ignore_eos": True}
    request = ("curl", "-sSN", f"{server.url}/completion", "-d", json.dumps(body))
    disconnected = server.cluster.attempt("run", "timeout", "3", *request)

    [result] = server.chat(tokens=16)

    assert disconnected.returncode == 124
    assert disconnected.stdout.startswith("data: ")
    assert result["completed"], result
    assert result["seconds"] < 10
    server.wait("jsonpath={.status.slots.busy}=0", 15)
