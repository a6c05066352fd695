"""Helm and our chart, on a test's API server."""

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
"""Where releases go."""


@dataclass(frozen=True)
class Helm:
    """Helm on the test's API server, with folders of its own."""

    api: ApiServer
    home: Path

    def run(self, *arguments: str, values: Mapping[str, Any] | None = None) -> str:
        """What helm says. Raises AssertionError with its complaint."""
        done = self.attempt(*arguments, values=values)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def attempt(
        self, *arguments: str, values: Mapping[str, Any] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run helm and say how it went; `values` are given as a values file."""
        return subprocess.run(
            [self.api.binaries / "helm", *arguments, *(("--values", "-") if values else ())],
            env={**os.environ, "KUBECONFIG": str(self.api.kubeconfig), "HOME": str(self.home)},
            input=json.dumps(values),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def install(self, release: str, *arguments: str) -> str:
        """Install or upgrade a release; takes over a CRD that is there already."""
        return self.run(
            *("upgrade", "--install", release, str(CHART), "--namespace", NAMESPACE),
            *("--take-ownership", *arguments),
        )

    def rendered(self, values: Mapping[str, Any] | None = None) -> str:
        """The chart's manifests with these values, without asking the API server."""
        # A Helm built from source knows no Kubernetes version to assume.
        return self.run(
            *("template", "slotkeeper", str(CHART), "--namespace", NAMESPACE),
            *("--kube-version", "1.34.0"),
            values=values,
        )
