"""Names and addresses that are the same in every native cluster."""

NODE = "node0"
ADDRESS = "192.0.2.10"
"""The node's address, from a block reserved for documentation (RFC 5737)."""
API_PORT = 6443
POD_RANGE = "10.244.0.0/24"
SERVICE_RANGE = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"
DOMAIN = "cluster.local"
SERVER = f"https://{ADDRESS}:{API_PORT}"
COREDNS_IMAGE = "docker.io/slotkeeper/coredns"
PAUSE_IMAGE = "docker.io/slotkeeper/pause"
REGISTRY = "localhost:5000"
"""Address of the tests' registry, which runs in the node's network. Container tools and containerd
use plain HTTP for localhost."""
