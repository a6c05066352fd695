"""The real KEDA, as the external metrics API of a test's cluster."""

from addons import Addon

KEDA = Addon(
    "keda",
    namespace="keda",
    manifests="config/minimal",
    deployments=("keda-operator", "keda-metrics-apiserver"),
    api_services=("v1beta1.external.metrics.k8s.io",),
)
