"""The `slotkeeper` command: one name in front of every process that the project runs."""

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "operator": (
        "slotkeeper.reconcile.main",
        "watch LlamaServers and keep the cluster as they say",
    ),
    "balancer": ("slotkeeper.balancer.main", "hand requests to free slots of llama-servers"),
    "download": ("slotkeeper.download.main", "download a model, check it and put it in place"),
    "trace": ("slotkeeper.simulation.trace_main", "write a request trace for what-if"),
    "what-if": ("slotkeeper.simulation.main", "simulate a server's autoscaling on a request trace"),
}
"""Command -> (module with `main(argv) -> exit status`, one line of help). Imported only when
asked for: each image installs no more than its own command needs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named first on the command line; 2 where there is none of that name."""
    command, *rest = [*(sys.argv[1:] if argv is None else argv), ""]
    if command not in COMMANDS:
        lines = [f"  {name:<10} {about}" for name, (_, about) in COMMANDS.items()]
        asked_for_help = command in {"-h", "--help"}
        print(
            "\n".join(["usage: slotkeeper COMMAND …", "", *lines]),
            file=sys.stdout if asked_for_help else sys.stderr,
        )
        return 0 if asked_for_help else 2
    module, _ = COMMANDS[command]
    status: int = import_module(module).main(rest[:-1])
    return status


if __name__ == "__main__":
    sys.exit(main())
