"""The cache of a worker: the weights that its leader has sent, in files.

A leader that restarts, or reconnects to a worker that has restarted, sends the hash of each large
tensor first, and rpc-server reads the tensor from the file of that name if there is one. It does
not verify the file: what a killed rpc-server has written in part would become wrong weights, and
the model would respond with nonsense. So a start removes the files that may be incomplete.
"""

from slotkeeper.api.workers import RpcCache
from slotkeeper.desired.literal import literal
from slotkeeper.desired.metadata import Manifest

FOLDER = "/rpc-cache"
VOLUME = "rpc-cache"

QUIET_MINUTES = 5
"""How long no file may have been written until all of them count as complete: far longer than
rpc-server takes for one."""

SCRIPT = f"""\
files=$LLAMA_CACHE/rpc
complete=$LLAMA_CACHE/complete
if [ -e "$complete" ]; then
  find "$files" -type f -newer "$complete" -exec rm -f {{}} + || rm -rf "$files"
else
  rm -rf "$files"
fi
while sleep 60 && kill -0 $$; do
  [ -n "$(find "$files" -type f -mmin -{QUIET_MINUTES})" ] || touch "$complete"
done </dev/null >/dev/null 2>&1 &
"""
"""Goes before the script that starts rpc-server, whose process ID it then has ($$). Where find is
missing, all files are removed at each start."""


def enable(container: Manifest, cache: RpcCache | None) -> Manifest:
    """Return an rpc-server's container, with the cache if there is one."""
    if cache is None:
        return container
    shell, option, script, *arguments = container["command"]
    return container | {
        "command": [shell, option, literal(SCRIPT) + script, *arguments, "--cache"],
        "env": [*container.get("env", []), {"name": "LLAMA_CACHE", "value": FOLDER}],
        "volumeMounts": [*container["volumeMounts"], {"name": VOLUME, "mountPath": FOLDER}],
    }


def volumes(cache: RpcCache | None) -> list[Manifest]:
    """Return the volume of the cache; none without one."""
    if cache is None:
        return []
    # As a string, which is how the API server returns it.
    size = {} if cache.size_limit is None else {"sizeLimit": str(cache.size_limit)}
    return [{"name": VOLUME, "emptyDir": size}]
