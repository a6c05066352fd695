"""The `slotkeeper` command, with a subcommand for every process of the project."""

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "operator": (
        "slotkeeper.reconcile.main",
        "run the operator: reconcile LlamaServers and LlamaGateways",
    ),
    "balancer": (
        "slotkeeper.balancer.main",
        "run a balancer: dispatch requests to free slots of llama-servers",
    ),
    "gateway": (
        "slotkeeper.gateway.main",
        "run a gateway: one address for many servers, routed by the name of the model",
    ),
    "batches": (
        "slotkeeper.batches.main",
        "run the batches of a gateway: files, and requests on slots that are free",
    ),
    "download": ("slotkeeper.download.main", "download a model and verify it"),
    "node-cache": (
        "slotkeeper.node_cache.main",
        "run the agent of a node's cache: remove models that no pod uses",
    ),
    "prompt-files": (
        "slotkeeper.prompt_files.main",
        "run the prompt-files agent of a replica: own the states of slots on its volume",
    ),
    "bake": ("slotkeeper.bake.main", "build an image with a model in it"),
    "plan": ("slotkeeper.plan.main", "plan the memory of a model: slots and context that fit"),
    "trace": ("slotkeeper.simulation.trace_main", "write a trace of requests for what-if"),
    "what-if": (
        "slotkeeper.simulation.main",
        "simulate a server's autoscaling on a trace of requests",
    ),
}
"""Command -> (module with `main(argv) -> exit status`, one line of help). A module is imported only
when its command runs: each image installs only the dependencies of its own command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names. Return its exit status, 2 if unknown."""
    command, *rest = [*(sys.argv[1:] if argv is None else argv), ""]
    if command not in COMMANDS:
        lines = [f"  {name:<12} {help_text}" for name, (_, help_text) in COMMANDS.items()]
        help_requested = command in {"-h", "--help"}
        if command and not help_requested:
            print(f"slotkeeper: no command {command}", file=sys.stderr)
        print(
            "\n".join(["usage: slotkeeper COMMAND …", "", *lines]),
            file=sys.stdout if help_requested else sys.stderr,
        )
        return 0 if help_requested else 2
    module, _ = COMMANDS[command]
    status: int = import_module(module).main(rest[:-1])
    return status


if __name__ == "__main__":
    sys.exit(main())
