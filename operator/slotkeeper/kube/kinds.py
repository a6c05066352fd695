"""Every kind that Slotkeeper reads or writes."""

from slotkeeper.api.group import GATEWAY_KIND, GATEWAY_PLURAL, GROUP, KIND, PLURAL, VERSION
from slotkeeper.kube.cluster import Kind, Manifest

LLAMA_SERVERS = Kind(GROUP, VERSION, PLURAL, KIND)
LLAMA_GATEWAYS = Kind(GROUP, VERSION, GATEWAY_PLURAL, GATEWAY_KIND)
DEPLOYMENTS = Kind("apps", "v1", "deployments", "Deployment")
STATEFUL_SETS = Kind("apps", "v1", "statefulsets", "StatefulSet")
REPLICA_SETS = Kind("apps", "v1", "replicasets", "ReplicaSet")
JOBS = Kind("batch", "v1", "jobs", "Job")
SERVICES = Kind("", "v1", "services", "Service")
PERSISTENT_VOLUME_CLAIMS = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
SERVICE_ACCOUNTS = Kind("", "v1", "serviceaccounts", "ServiceAccount")
ROLES = Kind("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
NETWORK_POLICIES = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
DISRUPTION_BUDGETS = Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
PODS = Kind("", "v1", "pods", "Pod")
ENDPOINT_SLICES = Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
NODES = Kind("", "v1", "nodes", "Node", metadata_only=True)
EVENTS = Kind("", "v1", "events", "Event")
LEASES = Kind("coordination.k8s.io", "v1", "leases", "Lease")

CHILDREN = (
    SERVICE_ACCOUNTS,
    ROLES,
    ROLE_BINDINGS,
    LEASES,
    SERVICES,
    NETWORK_POLICIES,
    DISRUPTION_BUDGETS,
    DEPLOYMENTS,
    STATEFUL_SETS,
    JOBS,
)
"""Kinds of objects that a LlamaServer may own."""

GATEWAY_CHILDREN = (
    SERVICE_ACCOUNTS,
    ROLES,
    ROLE_BINDINGS,
    PERSISTENT_VOLUME_CLAIMS,
    SERVICES,
    NETWORK_POLICIES,
    DISRUPTION_BUDGETS,
    DEPLOYMENTS,
)
"""Kinds of objects that a LlamaGateway may own."""

_OTHERS = (LLAMA_SERVERS, LLAMA_GATEWAYS, REPLICA_SETS, PODS, ENDPOINT_SLICES, EVENTS, NODES)
_KINDS = {(kind.api_version, kind.kind): kind for kind in (*CHILDREN, *GATEWAY_CHILDREN, *_OTHERS)}


def kind_of(manifest: Manifest) -> Kind:
    """Return the kind of a manifest by its `apiVersion` and `kind`. Raises KeyError if unknown."""
    return _KINDS[manifest["apiVersion"], manifest["kind"]]
