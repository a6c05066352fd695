"""With two operator pods one is the leader; when it is killed, the other continues its work."""

from operator_pods import kill, leader, operators
from servers import Server, spec

# The Lease of the killed operator has to expire first.
TIMEOUT = 90


def test_the_standby_completes_the_work_of_a_killed_operator(server: Server) -> None:
    server.ready(spec())

    with operators(server.cluster, 2):
        killed = leader(server.cluster)
        server.apply(spec(contextPerSlot=2048))
        kill(server.cluster, killed)
        other = Server(server.cluster, server.namespace, "other")
        other.apply(spec())

        other.wait("condition=Ready", TIMEOUT)
        server.wait("jsonpath={.status.observedGeneration}=2", TIMEOUT)
        server.wait("condition=ReplicasReady", TIMEOUT)

        assert leader(server.cluster) not in {"", killed}
    assert server.chat()[0]["completed"]
