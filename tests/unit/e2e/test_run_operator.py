"""`make run` uses the arguments and the Lease of an installed operator."""

import pytest

from run_operator import InstalledOperator, operator_arguments

IMAGE = "--balancer-image=slotkeeper/balancer:1"
OF_THE_POD = ("--health=[::]:8081", "--metrics=[::]:9090")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param((IMAGE,), [IMAGE, "--lease-namespace=system"], id="all namespaces"),
        pytest.param((IMAGE, "--namespace=a"), [IMAGE, "--namespace=a"], id="one namespace"),
        pytest.param(
            (IMAGE, "--lease-namespace=b"), [IMAGE, "--lease-namespace=b"], id="lease namespace"
        ),
    ],
)
def test_the_arguments_are_those_of_the_installed_operator(
    arguments: tuple[str, ...], expected: list[str]
) -> None:
    installed = InstalledOperator("system", "slotkeeper", (*arguments, *OF_THE_POD), 1)

    assert operator_arguments(installed) == expected


def test_without_an_installed_operator_the_lease_is_in_namespace_default() -> None:
    assert operator_arguments(None)[-1] == "--lease-namespace=default"
