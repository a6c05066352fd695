"""A model that requires a token: replicas wait for its Secret, and the token appears nowhere."""

from servers import QUICK, Server, Spec, spec

GATED = QUICK.replace("/quick", "/gated/quick")
HOST = GATED.split("/")[2]
TOKEN = "open-sesame"


def gated() -> Spec:
    secret = {"name": "gate", "allowHttp": True}
    return spec() | {"model": {"url": GATED, "tokenSecretRef": secret}}


def test_without_a_token_the_message_names_secret_ref(server: Server) -> None:
    server.apply(spec(GATED))

    message = server.wait_for_reason("Ready", "ModelForbidden")

    assert GATED in message
    assert "401" in message
    assert "tokenSecretRef" in message


def test_a_secret_that_lists_no_hosts_is_never_sent(server: Server) -> None:
    server.kubectl("create", "secret", "generic", "gate", f"--from-literal=token={TOKEN}")
    server.apply(gated())

    assert "Secret gate with its entries token, hosts" in server.wait_for_reason(
        "Ready", "WaitingForSecret"
    )


def test_a_secret_created_later_is_used_and_its_token_appears_nowhere(server: Server) -> None:
    server.apply(gated())
    assert "gate" in server.wait_for_reason("Ready", "WaitingForSecret")

    server.kubectl(
        *("create", "secret", "generic", "gate", f"--from-literal=token={TOKEN}"),
        f"--from-literal=hosts={HOST}",
    )
    # The kubelet retries a missing Secret with increasing delays.
    server.wait("condition=Ready", 180)

    pods = server.children("pods")
    [replica] = [pod for pod in pods if "replica" in pod["metadata"]["name"]]
    logs = server.kubectl("logs", replica["metadata"]["name"], "--all-containers", "--tail=-1")
    assert "quick.gguf" in logs
    assert TOKEN not in f"{logs}{pods}{server.get()}"
    [result] = server.chat()
    assert result["completed"], result
