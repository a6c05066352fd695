"""What a user adds to the replicas' pods in `spec.podTemplate`."""

import re
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from slotkeeper.api.json_object import JsonObject
from slotkeeper.api.placement import LABEL_KEY, LabelValue
from slotkeeper.api.validation import ApiModel, Rule, matches

_NAME = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"

VolumeName = Annotated[
    str,
    Field(max_length=63),
    matches(_NAME, "must be a volume's name: up to 63 lower-case letters, digits and '-'"),
]

_TAKEN_LABELS = "slotkeeper[.]dev/.*|app[.]kubernetes[.]io/(name|instance|component|managed-by)"
_TAKEN_ANNOTATIONS = "slotkeeper[.]dev/.*"


def _named(taken: str) -> tuple[Rule, Rule]:
    return (
        Rule(
            f"self.all(name, name.matches(r'^(?:{LABEL_KEY})$'))",
            "must have names such as team or example.com/team",
            lambda names: all(re.fullmatch(LABEL_KEY, name, re.ASCII) for name in names),
        ),
        Rule(
            f"self.all(name, !name.matches(r'^(?:{taken})$'))",
            "must not name what the operator sets itself: slotkeeper.dev/… and, of labels, "
            "app.kubernetes.io/name, instance, component and managed-by",
            lambda names: not any(re.fullmatch(taken, name, re.ASCII) for name in names),
        ),
    )


class EnvVar(ApiModel):
    """A variable of llama-server's environment, as in a container's env."""

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
        matches("[-._a-zA-Z][-._a-zA-Z0-9]*", "must be a variable's name, such as HTTPS_PROXY"),
        Rule(
            "!self.startsWith('LLAMA_')",
            "must not begin with LLAMA_: llama-server reads such variables as flags. Use the field "
            "for it, or extraArgs",
            lambda name: not name.startswith("LLAMA_"),
        ),
    ]
    """Name of the variable. Example: CUDA_DEVICE_ORDER"""

    value: Annotated[str, Field(max_length=32_768)] | None = None
    """Its value, up to 32768 characters. Whoever may read the resource sees it: keep secrets in a
    Secret, and name that in valueFrom. Default: empty. Example: PCI_BUS_ID"""

    value_from: JsonObject | None = None
    """Where its value comes from, as in a container's env. Default: nowhere.
    Example: {secretKeyRef: {name: proxy, key: password}}"""


class Volume(ApiModel):
    """A volume of the replicas' pods, as in a pod's volumes."""

    @staticmethod
    def _any_source(schema: dict[str, Any]) -> None:
        del schema["additionalProperties"]
        schema["x-kubernetes-preserve-unknown-fields"] = True

    model_config = ConfigDict(extra="allow", json_schema_extra=_any_source)

    name: Annotated[
        VolumeName,
        Rule(
            "!(self in ['models', 'tmp', 'model-token'])",
            "must not be models, tmp or model-token: the operator has volumes of these names",
            lambda name: name not in {"models", "tmp", "model-token"},
        ),
    ]
    """Name by which volumeMounts mean it. Beside it stands what the volume is made of, such as
    persistentVolumeClaim or configMap. Example: certificates"""


class VolumeMount(ApiModel):
    """Where llama-server sees a volume, as in a container's volumeMounts."""

    name: VolumeName
    """Name of one of podTemplate.volumes. Example: certificates"""

    mount_path: Annotated[
        str,
        Field(max_length=1024),
        matches("/[^:]*", "must be an absolute path without ':', such as /etc/certificates"),
        Rule(
            "!self.matches(r'^/(?:models|tmp)?(?:/.*)?$')",
            "must not be /, /models, /tmp or below these two: the operator's volumes are there",
            lambda path: not re.fullmatch("/(?:models|tmp)?(?:/.*)?", path),
        ),
    ]
    """Absolute path in the container. Example: /etc/certificates"""

    sub_path: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Path inside of the volume that is mounted. Default: its root. Example: ca"""

    read_only: bool = True
    """Whether it can only be read. Default: true. Example: false"""


class PodTemplate(ApiModel):
    """What the replicas' pods have beside what the operator gives them."""

    rules: ClassVar = (
        Rule(
            "!has(self.volumeMounts) || self.volumeMounts.all(mount, has(self.volumes) && "
            "self.volumes.exists(volume, volume.name == mount.name))",
            "volumeMounts must name volumes of podTemplate.volumes",
            lambda template: (
                {mount.name for mount in template.volume_mounts}
                <= {volume.name for volume in template.volumes}
            ),
        ),
    )

    labels: Annotated[dict[str, LabelValue], Field(max_length=32), *_named(_TAKEN_LABELS)] = Field(
        default_factory=dict
    )
    """Further labels of the pods, up to 32. Default: none. Example: {team: search}"""

    annotations: Annotated[
        dict[str, Annotated[str, Field(max_length=16_384)]],
        Field(max_length=32),
        *_named(_TAKEN_ANNOTATIONS),
    ] = Field(default_factory=dict)
    """Annotations of the pods, up to 32. Default: none.
    Example: {example.com/scrape: "false"}"""

    env: Annotated[
        list[EnvVar],
        Field(max_length=64),
        Rule(
            "self.all(one, self.exists_one(other, other.name == one.name))",
            "must not name a variable twice",
            lambda env: len({variable.name for variable in env}) == len(env),
        ),
    ] = Field(default_factory=list)
    """Variables of llama-server's environment, up to 64. Default: none.
    Example: [{name: CUDA_DEVICE_ORDER, value: PCI_BUS_ID}]"""

    volumes: Annotated[
        list[Volume],
        Field(max_length=32),
        Rule(
            "self.all(one, self.exists_one(other, other.name == one.name))",
            "must not name a volume twice",
            lambda volumes: len({volume.name for volume in volumes}) == len(volumes),
        ),
    ] = Field(default_factory=list)
    """Further volumes of the pods, up to 32. Pod Security `restricted` allows no hostPath. Default:
    none. Example: [{name: certificates, configMap: {name: certificates}}]"""

    volume_mounts: Annotated[
        list[VolumeMount],
        Field(max_length=32),
        Rule(
            "self.all(one, self.exists_one(other, other.mountPath == one.mountPath))",
            "must not name a mountPath twice",
            lambda mounts: len({mount.mount_path for mount in mounts}) == len(mounts),
        ),
    ] = Field(default_factory=list)
    """Where llama-server sees those volumes, up to 32. Default: nowhere.
    Example: [{name: certificates, mountPath: /etc/certificates}]"""
