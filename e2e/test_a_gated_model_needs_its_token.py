"""A model that asks for a token: the Secret is waited for, used, and shown nowhere."""

from servers import QUICK, Server, Spec, spec

GATED = QUICK.replace("/quick", "/gated/quick")
TOKEN = "open-sesame"


def gated() -> Spec:
    return spec() | {"model": {"url": GATED, "tokenSecretRef": {"name": "gate"}}}


def test_without_a_token_it_is_forbidden_and_says_what_to_name(server: Server) -> None:
    server.apply(spec(GATED))

    message = server.wait_for_reason("Ready", "ModelForbidden")

    assert GATED in message
    assert "401" in message
    assert "tokenSecretRef" in message


def test_a_secret_that_comes_late_is_used_and_its_token_shown_nowhere(server: Server) -> None:
    server.apply(gated())
    assert "gate" in server.wait_for_reason("Ready", "WaitingForSecret")

    server.kubectl("create", "secret", "generic", "gate", f"--from-literal=token={TOKEN}")
    # The kubelet looks for what it lacks more and more seldom.
    server.wait("condition=Ready", 180)

    pods = server.children("pods")
    [replica] = [pod for pod in pods if "replica" in pod["metadata"]["name"]]
    logs = server.kubectl("logs", replica["metadata"]["name"], "--all-containers", "--tail=-1")
    assert "quick.gguf" in logs
    assert TOKEN not in f"{logs}{pods}{server.get()}"
    [ending] = server.chat()
    assert ending["answered"], ending
