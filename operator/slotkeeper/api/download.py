"""How a model's files are downloaded: `spec.model.download`."""

from typing import Annotated

from pydantic import Field

from slotkeeper.api.placement import Name
from slotkeeper.api.resources import DiskSize, Resources
from slotkeeper.api.validation import ApiModel, matches

Proxy = Annotated[
    str,
    Field(max_length=1024),
    matches(
        "https?://[-.:a-zA-Z0-9_\\[\\]]+/?",
        "must be the URL of a proxy without user name and password, such as "
        "http://proxy.example.com:3128",
    ),
]

DirectHost = Annotated[
    str,
    Field(max_length=253),
    matches(
        "[-.:a-zA-Z0-9_]+",
        "must be a host name, a domain such as .example.com, or an IP address",
    ),
]


class CaConfigMap(ApiModel):
    """Entry of a ConfigMap with certificates of private authorities."""

    name: Name
    """Name of the ConfigMap in the server's namespace. Example: company-ca"""

    key: Annotated[
        str,
        Field(max_length=253),
        matches(
            "[-._a-zA-Z0-9]+",
            "must be the name of an entry of the ConfigMap: letters, digits, '-', '_' and '.'",
        ),
    ] = "ca.crt"
    """Entry of the ConfigMap with the certificates in PEM format. Default: ca.crt.
    Example: bundle.pem"""


class Download(ApiModel):
    """How files are downloaded."""

    max_file_size: DiskSize = "100Gi"
    """Maximum size of each file, and of all files of a split model together, a quantity from 1Mi to
    16Ti. It bounds what a model host can write
    to a node's disk or to a claim. Default: 100Gi. Example: 400Gi"""

    hub_endpoint: (
        Annotated[
            str,
            Field(max_length=1024),
            matches(
                r"https?://[-.:a-zA-Z0-9_\[\]]+(/[-._~a-zA-Z0-9]+)*/?",
                "must be a URL without user name, password and query, such as "
                "https://hub.example.com",
            ),
        ]
        | None
    ) = None
    """Hub of hf:// URLs: a mirror of Hugging Face's. Default: https://huggingface.co.
    Example: https://hub.example.com"""

    http_proxy: Proxy | None = None
    """Proxy for http:// URLs. Its address must be public, or allowed by the chart's
    modelDownloads.allowedAddressRanges. Default: the chart's modelDownloads.httpProxy.
    Example: http://proxy.example.com:3128"""

    https_proxy: Proxy | None = None
    """Proxy for https:// URLs, with an address as that of httpProxy. It sees the names of hosts,
    but no URLs, files and tokens. Default: the chart's modelDownloads.httpsProxy.
    Example: http://proxy.example.com:3128"""

    no_proxy: Annotated[list[DirectHost], Field(max_length=64)] = Field(default_factory=list)
    """Hosts that are connected to directly: names, domains and IP addresses, but no ranges, up to
    64. Those of the cluster, which end with .svc or .svc.cluster.local, always are, and those in
    the chart's modelDownloads.noProxy. Default: none. Example: [.example.com]"""

    ca_config_map_ref: CaConfigMap | None = None
    """Certificates of private authorities to trust, in addition to the public ones and those in the
    chart's modelDownloads.caCertificates. Default: none.
    Example: {name: company-ca}"""

    resources: Resources | None = None
    """CPU and memory of the init container that downloads and verifies the files. If set, they are
    used unchanged. Default: those of `resources`, so that a quota or LimitRange that accepts
    llama-server accepts the init container too. This costs nothing: a pod counts as the larger of
    the two. Where `resources` sets none: requests of cpu 100m and memory 128Mi, limits of cpu 1 and
    memory 256Mi.
    Example: {requests: {cpu: 1, memory: 256Mi}, limits: {cpu: 2, memory: 16Gi}}"""
