"""A client that goes away in mid-stream does not keep the slot: the next one has it at once."""

import json

from servers import SLOW, Server, spec


def test_a_client_that_leaves_frees_its_slot(server: Server) -> None:
    server.ready(spec(SLOW, slots=1, contextPerSlot=8192))
    # Half a minute's worth of tokens, of which the client waits for three seconds'.
    body = {"prompt": "x", "n_predict": 8000, "stream": True, "ignore_eos": True}
    request = ("curl", "-sSN", f"{server.url}/completion", "-d", json.dumps(body))
    left = server.cluster.attempt("run", "timeout", "3", *request)

    [ending] = server.chat(tokens=16)

    assert left.returncode == 124
    assert left.stdout.startswith("data: ")
    assert ending["answered"], ending
    assert ending["seconds"] < 10
    server.wait("jsonpath={.status.slots.busy}=0", 15)
