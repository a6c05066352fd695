"""The command line of e2e/cluster."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from provider import builds, clean, prerequisites
from provider.kind import Kind
from provider.native import Native
from provider.places import NAME, Place
from provider.progress import ClusterError, say
from provider.status import status

Cluster = Native | Kind


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; its exit status."""
    options = command_line().parse_args(arguments)
    try:
        if not NAME.fullmatch(options.name):
            raise ClusterError(
                f"--name {options.name}: at most 30 small letters, digits and hyphens"
            )
        return _dispatch(options)
    except (ClusterError, TimeoutError) as failure:
        say(str(failure))
    except subprocess.CalledProcessError as failure:
        # Nobody expected these to fail: the command itself says the most.
        say(f"{failure}\n{(failure.stderr or b'').decode(errors='replace')}")
    except KeyboardInterrupt:
        say("interrupted; calling it again goes on from here")
        return 130
    return 1


def _dispatch(options: argparse.Namespace) -> int:
    if options.command == "binaries":
        print(builds.directory())
        return 0
    if options.command == "clean":
        clean.clean()
        return 0
    cluster = _cluster(Place(options.name), options.provider)
    if options.command == "prerequisites":
        return _prerequisites(cluster, install=options.install)
    if options.command == "status":
        return status(cluster)
    if options.command in {"kubectl", "helm", "run"}:
        return _become(cluster, options)
    _act(cluster, options)
    return 0


def _act(cluster: Cluster, options: argparse.Namespace) -> None:
    match options.command:
        case "up":
            if _prerequisites(cluster, install=False):
                raise ClusterError("the cluster cannot come up")
            cluster.up()
        case "down":
            cluster.down()
        case "build":
            context = options.context or options.containerfile.parent
            cluster.build(options.image, options.containerfile, context, options.build_arg)
        case "load":
            cluster.load(options.images)
        case "gpus":
            cluster.kubectl().play_gpus(options.count, options.compute)


def _become(cluster: Cluster, options: argparse.Namespace) -> int:
    """Turn into the program that was asked for, so that its status and signals are its own."""
    if not cluster.exists():
        raise ClusterError(f"there is no cluster {cluster.place.name}: bring it {UP}")
    if options.command == "run":
        if not options.arguments:
            raise ClusterError("run what?")
        argv = [*cluster.inside(Path.cwd()), *options.arguments]
    else:
        argv = [*cluster.command(options.command), *options.arguments]
    sys.stdout.flush()
    os.execvpe(argv[0], argv, dict(cluster.environment()))


def _prerequisites(cluster: Cluster, *, install: bool) -> int:
    lacking = prerequisites.missing(cluster.provider)
    for item in lacking:
        print(item.sentence, file=sys.stderr)
    if not lacking and install and cluster.provider == "native":
        prerequisites.install()
    return 1 if lacking else 0


def _cluster(place: Place, provider: str | None) -> Cluster:
    native = Native(place)
    kind = Kind(place)
    if provider is None:
        if kind.exists():
            return kind
        if native.exists() or not prerequisites.docker_answers():
            return native
        return kind
    return kind if provider == "kind" else native


UP = "up with `e2e/cluster up`"


def command_line() -> argparse.ArgumentParser:
    """What e2e/cluster understands."""
    parser = argparse.ArgumentParser(
        prog="e2e/cluster", description="A real one-node Kubernetes cluster.", allow_abbrev=False
    )
    parser.add_argument("--name", default="slotkeeper", help="which cluster (default: %(default)s)")
    parser.add_argument(
        "--provider",
        choices=("native", "kind"),
        help="default: kind where a Docker daemon answers, else native",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="bring the cluster up, or mend it")
    commands.add_parser("down", help="end the cluster and remove what it left")
    commands.add_parser("status", help="say how the cluster is; exit status 1 if it is not running")
    _passing(commands, "kubectl", "call kubectl on the cluster")
    _passing(commands, "helm", "call helm on the cluster")
    _passing(commands, "run", "run a program where pods and Services can be reached")

    build = commands.add_parser("build", help="build an image")
    build.add_argument("image", metavar="IMAGE")
    build.add_argument("containerfile", metavar="CONTAINERFILE", type=Path)
    build.add_argument("context", metavar="CONTEXT", type=Path, nargs="?")
    build.add_argument("--build-arg", metavar="KEY=VALUE", action="append", default=[])
    load = commands.add_parser("load", help="put built images on the node")
    load.add_argument("images", metavar="IMAGE", nargs="+")
    gpus = commands.add_parser("gpus", help="let the node seem to have GPUs; 0 takes them away")
    gpus.add_argument("count", metavar="N", type=int)
    gpus.add_argument("--compute", metavar="X.Y", default="7.5", help="default: %(default)s")

    commands.add_parser("binaries", help="build the programs and print the folder they are in")
    needed = commands.add_parser("prerequisites", help="name what this machine lacks")
    needed.add_argument("--install", action="store_true", help="install Debian's packages")
    commands.add_parser("clean", help="end all clusters; remove them, our images and programs")
    return parser


def _passing(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> None:
    # No argument looks like an option of ours: all of them are the program's.
    command = commands.add_parser(name, help=text, prefix_chars="\0", add_help=False)
    command.add_argument("arguments", nargs=argparse.REMAINDER)
