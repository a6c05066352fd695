"""Additions to the pods of replicas: `spec.podTemplate`."""

import re
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, model_validator

from slotkeeper.api.json_object import MAX_FIELDS, JsonObject, bounded
from slotkeeper.api.placement import LABEL_KEY, QUEUE_LABEL, LabelValue
from slotkeeper.api.validation import ApiModel, Rule, matches

_NAME = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"

VolumeName = Annotated[
    str,
    Field(max_length=63),
    matches(_NAME, "must be the name of a volume: up to 63 lower-case letters, digits and '-'"),
]

_RESERVED_LABELS = "slotkeeper[.]dev/.*|app[.]kubernetes[.]io/(name|instance|component|managed-by)"
_RESERVED_ANNOTATIONS = "slotkeeper[.]dev/.*"


def _keys(reserved: str) -> tuple[Rule, Rule]:
    return (
        Rule(
            f"self.all(name, name.matches(r'^(?:{LABEL_KEY})$'))",
            "must have keys such as team or example.com/team",
            lambda names: all(re.fullmatch(LABEL_KEY, name, re.ASCII) for name in names),
        ),
        Rule(
            f"self.all(name, !name.matches(r'^(?:{reserved})$'))",
            "must not have keys that the operator sets itself: slotkeeper.dev/…, and for labels "
            "app.kubernetes.io/name, instance, component and managed-by",
            lambda names: not any(re.fullmatch(reserved, name, re.ASCII) for name in names),
        ),
    )


_RESERVED_VOLUMES = (
    "models",
    "tmp",
    "model-token",
    "model-ca",
    "model-s3",
    "model-s3-session",
    "prompt-files",
)
_RESERVED_VOLUME = f"{'|'.join(_RESERVED_VOLUMES)}|model-claim-[0-9]+"


class EnvVar(ApiModel):
    """Environment variable of llama-server, as in the env of a container."""

    rules: ClassVar = (
        Rule(
            "!has(self.value) || !has(self.valueFrom)",
            "value and valueFrom must not both be set",
            lambda variable: variable.value is None or variable.value_from is None,
        ),
    )

    name: Annotated[
        str,
        Field(max_length=253),
        matches(
            "[-._a-zA-Z][-._a-zA-Z0-9]*", "must be the name of a variable, such as HTTPS_PROXY"
        ),
        Rule(
            "!self.startsWith('LLAMA_')",
            "must not begin with LLAMA_: llama-server reads such variables as flags; set the "
            "field for the flag, or extraArgs",
            lambda name: not name.startswith("LLAMA_"),
        ),
    ]
    """Name of the variable. Example: CUDA_DEVICE_ORDER"""

    value: Annotated[str, Field(max_length=32_768)] | None = None
    """Value of the variable, up to 32768 characters. It is visible in the resource: store
    credentials in a Secret, and set valueFrom. Default: empty. Example: PCI_BUS_ID"""

    value_from: JsonObject | None = None
    """Source of the value, as in the env of a container. Default: none.
    Example: {secretKeyRef: {name: proxy, key: password}}"""


class Volume(ApiModel):
    """Volume of the pods of replicas, as in the volumes of a pod: a name, and a source such as
    persistentVolumeClaim or configMap."""

    @staticmethod
    def _allow_any_source(schema: dict[str, Any]) -> None:
        del schema["additionalProperties"]
        schema["x-kubernetes-preserve-unknown-fields"] = True
        schema["maxProperties"] = MAX_FIELDS

    model_config = ConfigDict(extra="allow", json_schema_extra=_allow_any_source)

    name: Annotated[
        VolumeName,
        Rule(
            f"!self.matches('^({_RESERVED_VOLUME})$')",
            f"must not be {', '.join(_RESERVED_VOLUMES)} or model-claim-N: the operator uses these "
            "names",
            lambda name: not re.fullmatch(_RESERVED_VOLUME, name),
        ),
    ]
    """Name of the volume, for volumeMounts. The source of the volume, such as persistentVolumeClaim
    or configMap, is a field next to it. Example: certificates"""

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, value: Any) -> Any:
        return bounded(value) if isinstance(value, dict) else value


_NOT_NORMALIZED = r"//|/[.]{1,2}(/|$)"


class VolumeMount(ApiModel):
    """Mount of a volume into llama-server's container, as in the volumeMounts of a container."""

    name: VolumeName
    """Name of one of podTemplate.volumes. Example: certificates"""

    mount_path: Annotated[
        str,
        Field(max_length=1024),
        matches("/[^:]*", "must be an absolute path without ':', such as /etc/certificates"),
        Rule(
            "!self.matches(r'^/(?:models|model-claims|prompt-files|tmp)?(?:/.*)?$')",
            "must not be /, /models, /model-claims, /prompt-files, /tmp or below these: the "
            "operator mounts its volumes there",
            lambda path: (
                not re.fullmatch("/(?:models|model-claims|prompt-files|tmp)?(?:/.*)?", path)
            ),
        ),
        Rule(
            f"!self.matches(r'{_NOT_NORMALIZED}')",
            "must not contain '//', '/./' or '/../': such a path may be another one than it seems",
            lambda path: re.search(_NOT_NORMALIZED, path) is None,
        ),
    ]
    """Absolute path in the container. Example: /etc/certificates"""

    sub_path: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Path within the volume. Default: the root of the volume. Example: ca"""

    read_only: bool = True
    """Whether the mount is read-only. Default: true. Example: false"""


class PodTemplate(ApiModel):
    """Additions to the pods of replicas."""

    rules: ClassVar = (
        Rule(
            "!has(self.volumeMounts) || self.volumeMounts.all(mount, has(self.volumes) && "
            "self.volumes.exists(volume, volume.name == mount.name))",
            "volumeMounts must refer to volumes by their names in podTemplate.volumes",
            lambda template: (
                {mount.name for mount in template.volume_mounts}
                <= {volume.name for volume in template.volumes}
            ),
        ),
    )

    labels: Annotated[
        dict[str, LabelValue],
        Field(max_length=32),
        *_keys(_RESERVED_LABELS),
        Rule(
            f"!('{QUEUE_LABEL}' in self)",
            f"must not contain {QUEUE_LABEL}: set placement.queueName",
            lambda labels: QUEUE_LABEL not in labels,
        ),
    ] = Field(default_factory=dict)
    """Additional labels of the pods, up to 32. Default: none. Example: {team: search}"""

    annotations: Annotated[
        dict[str, Annotated[str, Field(max_length=16_384)]],
        Field(max_length=32),
        *_keys(_RESERVED_ANNOTATIONS),
    ] = Field(default_factory=dict)
    """Annotations of the pods, up to 32. Default: none.
    Example: {example.com/scrape: "false"}"""

    env: Annotated[
        list[EnvVar],
        Field(max_length=64),
        Rule(
            "self.all(one, self.exists_one(other, other.name == one.name))",
            "must not contain a name twice",
            lambda env: len({variable.name for variable in env}) == len(env),
        ),
    ] = Field(default_factory=list)
    """Environment variables of llama-server, up to 64. Default: none.
    Example: [{name: CUDA_DEVICE_ORDER, value: PCI_BUS_ID}]"""

    volumes: Annotated[
        list[Volume],
        Field(max_length=32),
        Rule(
            "self.all(one, self.exists_one(other, other.name == one.name))",
            "must not contain a name twice",
            lambda volumes: len({volume.name for volume in volumes}) == len(volumes),
        ),
    ] = Field(default_factory=list)
    """Additional volumes of the pods, up to 32. Pod Security `restricted` does not allow hostPath.
    Default: none. Example: [{name: certificates, configMap: {name: certificates}}]"""

    volume_mounts: Annotated[
        list[VolumeMount],
        Field(max_length=32),
        Rule(
            "self.all(one, self.exists_one(other, other.mountPath == one.mountPath))",
            "must not contain a mountPath twice",
            lambda mounts: len({mount.mount_path for mount in mounts}) == len(mounts),
        ),
    ] = Field(default_factory=list)
    """Mounts of these volumes into llama-server's container, up to 32. Default: none.
    Example: [{name: certificates, mountPath: /etc/certificates}]"""
