"""No test's traffic gets out of the cluster's own network."""

from stack import Cluster


def test_an_outside_address_cannot_be_reached(cluster: Cluster) -> None:
    # 198.51.100.0/24 is set aside for documentation: nobody is there, inside or outside.
    probe = ("curl", "-sS", "--max-time", "2", "http://198.51.100.1/")

    answer = cluster.attempt("run", *probe)

    assert answer.returncode != 0
    assert answer.stdout == ""
