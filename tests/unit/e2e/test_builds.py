"""What is built is what the modules under e2e/tools say."""

from provider.builds import LONG_TESTS_ALONE, MANIFESTS, go_needed, modules
from provider.native import MODULES


def test_every_program_is_built_by_one_module() -> None:
    programs = [name for module in modules().values() for name in module.packages]

    assert sorted(programs) == sorted(set(programs))
    assert {"kube-apiserver", "etcd", "kubelet", "kubectl", "helm", "coredns", "pause"} <= set(
        programs
    )
    assert {"keda-operator", "keda-adapter"} <= set(programs)


def test_kubernetes_is_told_its_version() -> None:
    flags = modules()["kubernetes"].linker_flags

    assert "version.gitVersion=v1.34." in flags
    assert "version.gitMajor=1" in flags
    assert "version.gitMinor=34" in flags
    assert modules()["helm"].linker_flags == "-s -w"


def test_debian_13s_go_builds_all_of_them() -> None:
    assert go_needed() <= (1, 24)


def test_no_cluster_needs_what_asks_for_a_newer_go() -> None:
    assert not set(LONG_TESTS_ALONE) & set(MODULES)


def test_manifests_are_of_a_package_whose_version_is_pinned() -> None:
    for name, (package, _) in MANIFESTS.items():
        assert f"\t{package} v" in modules()[name].text
