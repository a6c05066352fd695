"""The command line of e2e/cluster."""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from provider import builds, clean, images, prerequisites
from provider.kind import Kind
from provider.native import Native
from provider.paths import NAME, ClusterPaths
from provider.progress import ClusterError, print_progress
from provider.status import status

Cluster = Native | Kind


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    options = command_line().parse_args(arguments)
    try:
        if not NAME.fullmatch(options.name):
            raise ClusterError(
                f"invalid --name {options.name}: must be at most 30 lower-case letters, digits and "
                "hyphens"
            )
        return _dispatch(options)
    except (ClusterError, TimeoutError) as failure:
        print_progress(str(failure))
    except subprocess.CalledProcessError as failure:
        # Unexpected, so there is no better message than the command and its output.
        print_progress(f"{failure}\n{(failure.stderr or b'').decode(errors='replace')}")
    except KeyboardInterrupt:
        print_progress("interrupted; run the same command again to continue")
        return 130
    return 1


def _dispatch(options: argparse.Namespace) -> int:
    match options.command:
        case "binaries":
            print(builds.tools_directory())
        case "clean":
            clean.clean()
        case "chromium":
            print(prerequisites.ensure_chromium())
        case "buildah":
            argv = [*images.buildah_command(), *options.arguments]
            _replace_process(argv, images.buildah_environment())
        case _:
            return _dispatch_for_cluster(options)
    return 0


def _dispatch_for_cluster(options: argparse.Namespace) -> int:
    cluster = _cluster(ClusterPaths(options.name), options.provider)
    if options.command == "prerequisites":
        return _prerequisites(cluster, install=options.install)
    if options.command == "status":
        return status(cluster)
    if options.command in {"kubectl", "helm", "run"}:
        return _exec(cluster, options)
    _run(cluster, options)
    return 0


def _run(cluster: Cluster, options: argparse.Namespace) -> None:
    match options.command:
        case "up":
            if _prerequisites(cluster, install=False):
                raise ClusterError("cannot bring the cluster up: prerequisites are missing")
            cluster.up()
        case "down":
            cluster.down()
        case "build":
            context = options.context or options.containerfile.parent
            cluster.build(options.image, options.containerfile, context, options.build_arg)
        case "load":
            cluster.load(options.images)
        case "gpus":
            cluster.kubectl().set_fake_gpus(options.count, options.compute)


def _exec(cluster: Cluster, options: argparse.Namespace) -> int:
    """Replace this process by the requested program: exit status and signals are the program's."""
    if not cluster.exists():
        name = cluster.paths.name
        raise ClusterError(f"no cluster {name}: bring it up with `e2e/cluster --name {name} up`")
    if options.command == "run":
        if not options.arguments:
            raise ClusterError("run: no command given")
        argv = [*cluster.network_command(Path.cwd()), *options.arguments]
    else:
        argv = [*cluster.command(options.command), *options.arguments]
    return _replace_process(argv, cluster.environment())


def _replace_process(argv: list[str], environment: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    os.execvpe(argv[0], argv, dict(environment))


def _prerequisites(cluster: Cluster, *, install: bool) -> int:
    missing = prerequisites.missing(cluster.provider)
    for prerequisite in missing:
        print(prerequisite.message, file=sys.stderr)
    if not missing and install and cluster.provider == "native":
        prerequisites.install()
    return 1 if missing else 0


def _cluster(paths: ClusterPaths, provider: str | None) -> Cluster:
    native = Native(paths)
    kind = Kind(paths)
    if provider is None:
        if kind.exists():
            return kind
        if native.exists() or not prerequisites.docker_available():
            return native
        return kind
    return kind if provider == "kind" else native


def command_line() -> argparse.ArgumentParser:
    """Return the argument parser of e2e/cluster."""
    parser = argparse.ArgumentParser(
        prog="e2e/cluster", description="A real one-node Kubernetes cluster.", allow_abbrev=False
    )
    parser.add_argument(
        "--name", default="slotkeeper", help="name of the cluster (default: %(default)s)"
    )
    parser.add_argument(
        "--provider",
        choices=("native", "kind"),
        help="default: kind if a Docker daemon is running, otherwise native",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="start the cluster, or restart what has stopped")
    commands.add_parser("down", help="stop the cluster and remove its files")
    commands.add_parser(
        "status", help="print the cluster's status; exit status 1 if it is not running"
    )
    _add_passthrough(commands, "kubectl", "run kubectl against the cluster")
    _add_passthrough(commands, "helm", "run helm against the cluster")
    _add_passthrough(commands, "run", "run a program in the network that reaches pods and Services")

    _add_passthrough(commands, "buildah", "run buildah on the images of the native provider")

    build = commands.add_parser("build", help="build an image")
    build.add_argument("image", metavar="IMAGE")
    build.add_argument("containerfile", metavar="CONTAINERFILE", type=Path)
    build.add_argument("context", metavar="CONTEXT", type=Path, nargs="?")
    build.add_argument("--build-arg", metavar="KEY=VALUE", action="append", default=[])
    load = commands.add_parser("load", help="load built images onto the node")
    load.add_argument("images", metavar="IMAGE", nargs="+")
    gpus = commands.add_parser("gpus", help="make the node advertise N fake GPUs; 0 removes them")
    gpus.add_argument("count", metavar="N", type=int)
    gpus.add_argument(
        "--compute",
        metavar="X.Y",
        default="7.5",
        help="compute capability of the fake GPUs (default: %(default)s)",
    )

    commands.add_parser("binaries", help="build the programs and print the folder with them")
    needed = commands.add_parser("prerequisites", help="list what this machine lacks")
    needed.add_argument("--install", action="store_true", help="install missing Debian packages")
    commands.add_parser(
        "chromium", help="print the path of Chromium; Debian's is installed if there is none"
    )
    commands.add_parser(
        "clean", help="stop all clusters; remove them, the built images and the built programs"
    )
    return parser


def _add_passthrough(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> None:
    # With this prefix no argument is taken for an option of e2e/cluster: all are the program's.
    command = commands.add_parser(name, help=text, prefix_chars="\0", add_help=False)
    command.add_argument("arguments", nargs=argparse.REMAINDER)
