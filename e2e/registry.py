"""A registry in the node's network, from which its containerd pulls."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from provider.constants import REGISTRY
from stack import Cluster

CONFIG = f"""\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: FOLDER}}
http: {{addr: "{REGISTRY}"}}
"""


@contextmanager
def registry(cluster: Cluster, folder: Path) -> Iterator[str]:
    """Run an empty registry, whose blobs are in this folder; yield its address."""
    config = folder / "registry.yml"
    config.write_text(CONFIG.replace("FOLDER", str(folder)))
    with cluster.start("run", "docker-registry", "serve", str(config)) as process:
        deadline = time.monotonic() + 20
        while cluster.attempt("run", "curl", "-fsS", f"http://{REGISTRY}/v2/").returncode:
            assert process.poll() is None
            assert time.monotonic() < deadline
        yield REGISTRY
        process.terminate()
