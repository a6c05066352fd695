"""The programs are built as the modules under e2e/tools specify."""

from provider.builds import LONG_TESTS_ONLY, MANIFESTS, minimum_go_version, modules
from provider.native import MODULES


def test_every_program_is_built_by_one_module() -> None:
    programs = [name for module in modules().values() for name in module.packages]

    assert sorted(programs) == sorted(set(programs))
    assert {"kube-apiserver", "etcd", "kubelet", "kubectl", "helm", "coredns", "pause"} <= set(
        programs
    )
    assert {"keda-operator", "keda-adapter", "kueue"} <= set(programs)


def test_the_version_is_linked_into_kubernetes() -> None:
    flags = modules()["kubernetes"].linker_flags

    assert "version.gitVersion=v1.34." in flags
    assert "version.gitMajor=1" in flags
    assert "version.gitMinor=34" in flags
    assert modules()["helm"].linker_flags == "-s -w"


def test_the_go_of_debian_13_builds_all_modules() -> None:
    assert minimum_go_version() <= (1, 24)


def test_a_cluster_needs_no_module_that_requires_a_newer_go() -> None:
    assert not set(LONG_TESTS_ONLY) & set(MODULES)


def test_manifests_come_from_a_package_with_a_pinned_version() -> None:
    for name, (package, _) in MANIFESTS.items():
        assert f"\t{package} v" in modules()[name].text
