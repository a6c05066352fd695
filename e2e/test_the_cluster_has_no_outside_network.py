"""No traffic of a test leaves the cluster's network."""

from stack import Cluster


def test_an_outside_address_cannot_be_reached(cluster: Cluster) -> None:
    # 198.51.100.0/24 is reserved for documentation (RFC 5737): no host has such an address.
    probe = ("curl", "-sS", "--max-time", "2", "http://198.51.100.1/")

    result = cluster.attempt("run", *probe)

    assert result.returncode != 0
    assert result.stdout == ""
