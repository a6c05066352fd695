"""Two operator pods are safe: one works, and when it is killed the other goes on where it was."""

from operator_pods import kill, leader, operators
from servers import Server, spec

# The Lease of one that was killed has to run out first.
PATIENCE = 90


def test_what_was_asked_of_a_killed_operator_is_done_by_the_other(server: Server) -> None:
    server.ready(spec())

    with operators(server.cluster, 2):
        killed = leader(server.cluster)
        server.apply(spec(contextPerSlot=2048))
        kill(server.cluster, killed)
        other = Server(server.cluster, server.namespace, "other")
        other.apply(spec())

        other.wait("condition=Ready", PATIENCE)
        server.wait("jsonpath={.status.observedGeneration}=2", PATIENCE)
        server.wait("condition=ReplicasReady", PATIENCE)

        assert leader(server.cluster) not in {"", killed}
    assert server.chat()[0]["answered"]
