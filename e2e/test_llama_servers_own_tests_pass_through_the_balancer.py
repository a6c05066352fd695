"""llama.cpp's own tests of llama-server pass through the balancer, but for the documented
differences."""

import pytest

from llama_tests import DIFFERENCES, differences, failures, run, without_parameters
from stack import Cluster


@pytest.mark.long
def test_only_documented_differences_fail(cluster: Cluster, namespace: str) -> None:
    outcomes = run(cluster, namespace)

    # Such a test has nothing to compare: name it in LEFT_OUT, with the reason.
    assert failures(outcomes) == {}
    differing = differences(outcomes)
    names = {without_parameters(test) for test in differing}
    assert (names - set(DIFFERENCES), set(DIFFERENCES) - names) == (set(), set()), differing
    # With all of their parameters.
    assert {test for test in outcomes if without_parameters(test) in names} == set(differing)
    assert sum(both == ("passed", "passed") for both in outcomes.values()) > 200
