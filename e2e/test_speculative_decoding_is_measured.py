"""A draft is downloaded and used, and the part of its guesses that was right is reported."""

from servers import QUICK, Server, spec


def test_speculative_decoding_is_measured(server: Server) -> None:
    # The model as its own draft, which guesses what it would generate.
    guessing = {"draft": {"url": QUICK}, "maxTokens": 4}
    server.ready(spec(speculative=guessing, sampling={"temperature": 0}))

    [result] = server.chat(tokens=64)

    assert result["completed"], result
    server.wait("jsonpath={.status.speculative.acceptancePercent}", 120)
    speculative = server.get()["status"]["speculative"]
    assert speculative["acceptancePercent"] >= 90
    assert speculative["inactiveReplicas"] == 0
    assert server.condition("Degraded")["status"] == "False"
    # Without a draft, from repetitions, which noise has few of.
    server.ready(spec(speculative={"type": "ngram-mod", "maxTokens": 8}))
    assert server.chat()[0]["completed"]
    assert server.condition("Degraded")["status"] == "False"
