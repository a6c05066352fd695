"""External backends of a gateway: `spec.externalBackends`."""

import re
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, JsonValue

from slotkeeper.api.balancer import SecretName
from slotkeeper.api.in_cluster import HTTP_URL
from slotkeeper.api.model import ModelName
from slotkeeper.api.validation import ApiModel, Rule, matches

MAX_BACKENDS = 32
MAX_MODELS = 64
"""Models of one backend."""

BACKEND_NAME = "[a-z]([-a-z0-9]*[a-z0-9])?"

BackendName = Annotated[
    str,
    Field(max_length=40),
    matches(
        BACKEND_NAME,
        "must be a DNS label of up to 40 lower-case letters, digits and '-', such as vllm",
    ),
]

EntryName = Annotated[
    str,
    Field(max_length=253),
    matches(
        "[-_a-zA-Z0-9][-._a-zA-Z0-9]*",
        "must be the name of an entry of the Secret: letters, digits, '-', '_' and '.'",
    ),
    Rule(
        "self != 'hosts'",
        "must not be hosts: that entry lists the hosts that may receive the key",
        lambda key: key != "hosts",
    ),
]

_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"

BackendUrl = Annotated[
    str,
    Field(max_length=512),
    matches(
        r"https?://([a-zA-Z0-9]([-.a-zA-Z0-9]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])"
        f"(:{_PORT})?(/|(/[-._~a-zA-Z0-9]+)+/?)",
        "must be the base URL of an OpenAI-compatible API with its path, such as "
        "https://api.example.com/v1, without user name, query and fragment; if the API has no "
        "path, it ends in /",
    ),
]

UpstreamName = Annotated[
    str,
    Field(min_length=1, max_length=256),
    matches("[!-~]+", "must be printable ASCII without spaces"),
]

_INT32 = {"format": "int32"}


def unique_by(field: str) -> tuple[Any, Any]:
    """Return the annotations of a list whose items must differ in a field.

    The API server compares the keys of such a list itself. A rule that compares all pairs would
    exceed what it allows rules to cost.
    """

    def check(items: list[Any]) -> list[Any]:
        values = [getattr(item, field) for item in items]
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"must not contain the {field} {value} twice")
        return items

    extra: dict[str, JsonValue] = {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [field],
    }
    return Field(json_schema_extra=extra), AfterValidator(check)


class EntryRef(ApiModel):
    """Reference to an entry of a Secret in the gateway's namespace."""

    name: SecretName
    """Name of the Secret. Example: openai"""

    key: EntryName
    """Name of the entry. Example: api-key"""


class ExternalModel(ApiModel):
    """A model of an external backend."""

    name: ModelName
    """Name of the model, for requests to the gateway. Example: gpt-4o"""

    upstream_name: UpstreamName | None = None
    """Name of the model in requests to the backend. Default: name. Example: gpt-4o-2024-11-20"""


class ExternalBackend(ApiModel):
    """An OpenAI-compatible server that is not a LlamaServer."""

    rules: ClassVar = (
        Rule(
            "!has(self.secretRef) || self.url.startsWith('https://') || "
            f"self.url.matches(r'^(?:{HTTP_URL})$')",
            "url must be https:// with secretRef, except for hosts of the cluster, whose names end "
            "with .svc or .svc.cluster.local: others could read the key",
            lambda backend: (
                backend.secret_ref is None
                or backend.url.startswith("https://")
                or re.fullmatch(HTTP_URL, backend.url, re.ASCII) is not None
            ),
        ),
        Rule(
            "!has(self.caSecretRef) || self.url.startsWith('https://')",
            "url must be https:// with caSecretRef",
            lambda backend: backend.ca_secret_ref is None or backend.url.startswith("https://"),
        ),
    )

    name: BackendName
    """Name of the backend, in metrics, logs and lists of models: up to 40 characters.
    Example: openai"""

    url: BackendUrl
    """Base URL as for OpenAI's SDK: a request for /v1/chat/completions is sent to
    URL/chat/completions. Its host must have a public address, or be a Service of the gateway's
    namespace, SERVICE.NAMESPACE.svc, or in the chart's gatewayBackends.allowedCIDRs. Redirects are
    not followed. Example: https://api.example.com/v1"""

    secret_ref: EntryRef | None = None
    """Entry of a Secret with the API key for the backend, which is sent as a bearer token. The
    Secret's entry `hosts` must list the url's host, or the key is not sent: names of hosts,
    separated by spaces or commas. The keys of clients are never sent. Changes take effect within
    about a minute, without a restart. Default: no key. Example: {name: openai, key: api-key}"""

    ca_secret_ref: EntryRef | None = None
    """Entry of a Secret with the certificate authorities, in PEM format, that the backend's
    certificate must be from. Default: those of the image. Example: {name: vllm-ca, key: ca.crt}"""

    models: Annotated[
        list[ExternalModel], Field(min_length=1, max_length=MAX_MODELS), *unique_by("name")
    ]
    """Models of the backend that the gateway serves, 1 to 64. If a LlamaServer or an earlier
    backend has a model of the same name, that one is used.
    Example: [{name: gpt-4o, upstreamName: gpt-4o-2024-11-20}]"""

    first_byte_seconds: Annotated[int, Field(ge=1, le=86_400, json_schema_extra=_INT32)] | None = (
        None
    )
    """Maximum time in seconds from a request to the first byte of its response, 1 to 86400; then
    status 504. Default: timeouts.firstByteSeconds. Example: 60"""


ExternalBackends = Annotated[
    list[ExternalBackend], Field(max_length=MAX_BACKENDS), *unique_by("name")
]
