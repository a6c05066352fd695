"""A model that requires a token: replicas wait for its Secret, and the token appears nowhere."""

from servers import QUICK, Server, Spec, spec

GATED = QUICK.replace("/quick", "/gated/quick")
TOKEN = "open-sesame"


def gated() -> Spec:
    return spec() | {"model": {"url": GATED, "tokenSecretRef": {"name": "gate"}}}


def test_without_a_token_the_message_names_secret_ref(server: Server) -> None:
    server.apply(spec(GATED))

    message = server.wait_for_reason("Ready", "ModelForbidden")

    assert GATED in message
    assert "401" in message
    assert "tokenSecretRef" in message


def test_a_secret_created_later_is_used_and_its_token_appears_nowhere(server: Server) -> None:
    server.apply(gated())
    assert "gate" in server.wait_for_reason("Ready", "WaitingForSecret")

    server.kubectl("create", "secret", "generic", "gate", f"--from-literal=token={TOKEN}")
    # The kubelet retries a missing Secret with increasing delays.
    server.wait("condition=Ready", 180)

    pods = server.children("pods")
    [replica] = [pod for pod in pods if "replica" in pod["metadata"]["name"]]
    logs = server.kubectl("logs", replica["metadata"]["name"], "--all-containers", "--tail=-1")
    assert "quick.gguf" in logs
    assert TOKEN not in f"{logs}{pods}{server.get()}"
    [result] = server.chat()
    assert result["completed"], result
