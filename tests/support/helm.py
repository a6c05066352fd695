"""Runs Helm with our chart on a test's API server."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apiserver import ApiServer
from chart import CHART

NAMESPACE = "slotkeeper-system"
"""Namespace of the releases."""

# Only one release in a cluster can own its cluster-scoped objects.
SECOND_RELEASE = ("--set", "crds.enabled=false,rbac.aggregate=false")


@dataclass(frozen=True)
class Helm:
    """Helm for the test's API server, with its own home folder."""

    api: ApiServer
    home: Path

    def run(self, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
        """Run helm; return its output. Raises AssertionError with its stderr."""
        result = self.attempt(*arguments, values=values)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def attempt(
        self, *arguments: str, values: Mapping[str, Any] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run helm, with `values` as a values file; return the completed process."""
        return subprocess.run(
            [self.api.binaries / "helm", *arguments, *(("--values", "-") if values else ())],
            env={**os.environ, "KUBECONFIG": str(self.api.kubeconfig), "HOME": str(self.home)},
            input=json.dumps(values),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def install(
        self, release: str, *arguments: str, values: Mapping[str, Any] | None = None
    ) -> str:
        """Install or upgrade a release, which adopts an existing CRD; return helm's output."""
        return self.run(
            *("upgrade", "--install", release, str(CHART), "--namespace", NAMESPACE),
            *("--take-ownership", *arguments),
            values=values,
        )

    def rendered(self, values: Mapping[str, Any] | None = None) -> str:
        """Return the chart's manifests with these values, rendered without the API server."""
        # A Helm built from source has no default Kubernetes version.
        return self.run(
            *("template", "slotkeeper", str(CHART), "--namespace", NAMESPACE),
            *("--kube-version", "1.34.0"),
            values=values,
        )
