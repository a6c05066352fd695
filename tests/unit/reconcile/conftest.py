"""A fake cluster and an operator on it."""

import pytest

from fake_cluster import FakeCluster
from operator_harness import Operator


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def operator(cluster: FakeCluster) -> Operator:
    return Operator(cluster)
