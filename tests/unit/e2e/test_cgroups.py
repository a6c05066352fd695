"""cgroup hierarchies of both versions are read from the machine's mounts."""

from pathlib import Path

from provider.cgroups import Hierarchy, hierarchies

UNIFIED = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
OTHERS = "23 28 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n"
CPUSET = "31 30 0:28 / /sys/fs/cgroup/cpuset rw,nosuid - cgroup cgroup rw,cpuset\n"


def test_version_2_is_one_hierarchy(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(OTHERS + UNIFIED)

    [hierarchy] = hierarchies(mounts)

    assert (hierarchy.mount, hierarchy.unified) == (Path("/sys/fs/cgroup"), True)


def test_version_1_is_one_hierarchy_for_each_controller(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(OTHERS + CPUSET)

    [hierarchy] = hierarchies(mounts)

    assert hierarchy == Hierarchy(Path("/sys/fs/cgroup/cpuset"), False, ("rw", "cpuset"))
