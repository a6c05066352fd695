"""The Prometheus metrics of a node's cache."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from slotkeeper.node_cache.folder import Scan
from slotkeeper.node_cache.policy import Entry
from slotkeeper.node_folder import Limits

_PREFIX = "slotkeeper_node_cache"


class Metrics:
    """Gauges as of the last sweep, and counters."""

    def __init__(self, registry: CollectorRegistry, limits: Limits) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"{_PREFIX}_{name}", text, registry=registry)

        def counter(name: str, text: str) -> Counter:
            return Counter(f"{_PREFIX}_{name}", text, registry=registry)

        self._bytes = gauge("bytes", "Bytes of all files of the cache")
        self._models = gauge("models", "Models and other files with a name of their own")
        self._in_use = gauge("in_use_bytes", "Bytes of the files that pods of the node use")
        self._excess = gauge("excess_bytes", "Bytes in use above the limit, or that the disk lacks")
        self._free = gauge("disk_free_bytes", "Free bytes of the disk")
        self._foreign = gauge("foreign_files", "Files and folders that are not of the cache")
        self._removed = counter("removed_models", "Models that were removed")
        self._removed_bytes = counter("removed_bytes", "Bytes of the models that were removed")
        self._prompt_folders = gauge("prompt_folders", "Folders of prompts, one for each server")
        self._removed_prompts = counter(
            "removed_prompt_folders", "Folders of prompts that were removed with their server"
        )
        self._errors = counter("errors", "Errors of the API server and of the disk")
        gauge("limit_bytes", "Limit of all files").set(limits.max_bytes)

    def set_scan(self, scan: Scan) -> None:
        """Set what the folder contains."""
        self._bytes.set(sum(each.size for each in scan.entries))
        self._models.set(len(scan.entries))
        self._free.set(scan.disk.free)
        self._foreign.set(scan.foreign)

    def set_use(self, in_use: int, excess: int) -> None:
        """Set the bytes in use, and those above the limits."""
        self._in_use.set(in_use)
        self._excess.set(excess)

    def count_removed(self, entry: Entry) -> None:
        """Count a model that was removed."""
        self._removed.inc()
        self._removed_bytes.inc(entry.size)

    def set_prompt_folders(self, count: int) -> None:
        """Set the number of folders of prompts, as of the last sweep."""
        self._prompt_folders.set(count)

    def count_removed_prompts(self) -> None:
        """Count a folder of prompts that was removed."""
        self._removed_prompts.inc()

    def count_error(self) -> None:
        """Count an error, after which work continues."""
        self._errors.inc()
