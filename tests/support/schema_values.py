"""Valid and invalid values for each field of a LlamaServer's spec, derived from the CRD's schema.

Tests that use them cover a new field automatically. Valid values are the documented example, the
members of the enum and the bounds; invalid values are forbidden by the schema.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import yaml

from llamaservers import parsed, raw_server
from slotkeeper.api.crd import crd
from slotkeeper.api.resource import InvalidSpec
from slotkeeper.api.server import LlamaServer

Json = Any
Path = tuple[str, ...]

ITEM = "[]"
VALUE = "{}"
"""Steps of a path: an item of a list, a value of a map."""

ABSENT = object()
"""Stands for a value of a field that is not set."""

BASES: Mapping[str, Mapping[str, Json]] = {
    "gpu": {"gpu": {"count": 2}, "replicas": 2},
    "cpu": {"gpu": {"count": 0}, "resources": {"limits": {"cpu": 8, "memory": "16Gi"}}},
    "group": {"gpu": {"count": 1}, "workers": {"count": 2}},
    "scaled": {"autoscaling": {"maxReplicas": 1000}},
    "drafted": {"speculative": {"draft": {"url": "https://models.example.com/draft.gguf"}}},
}
"""Specs of different kinds: each field has an effect in at least one of them."""

_TWO_POLICIES = [
    {"type": "Pods", "value": 1, "periodSeconds": 60},
    {"type": "Pods", "value": 3, "periodSeconds": 60},
]

NEEDS: Mapping[str, Mapping[str, Json]] = {
    # Required by a rule.
    "gpu.tensorSplit": {"gpu.count": 2},
    "gpu.mainGpu": {"gpu.count": 128, "gpu.splitMode": "none"},
    # Without a type there is a draft.
    "speculative.draft": {"speculative.type": ABSENT},
    "speculative.minProbability": {
        "speculative.type": ABSENT,
        "speculative.draft": {"url": "https://models.example.com/draft.gguf"},
    },
    "autoscaling.idleSeconds": {"autoscaling.minReplicas": 0},
    "model.cache.sizeLimit": {"model.cache.claimName": ABSENT},
    "model.prefetch": {"model.cache": {"claimName": "models"}},
    "model.cache.node": {"model.cache.claimName": ABSENT, "model.cache.sizeLimit": ABSENT},
    "balancer.resources.requests": {"balancer.resources.limits": ABSENT},
    "update.strategy": {"update.maxSurge": ABSENT},
    "autoscaling.schedules[].maxReplicas": {"autoscaling.schedules[].minReplicas": 0},
    "balancer.allowedPaths[]": {"balancer.allowedPaths": ["/tokenize"]},
    "placement.tolerations[].value": {"placement.tolerations[].operator": "Equal"},
    "placement.tolerations[].tolerationSeconds": {"placement.tolerations[].effect": "NoExecute"},
    "balancer.placement.tolerations[].value": {
        "balancer.placement.tolerations[].operator": "Equal"
    },
    "balancer.placement.tolerations[].tolerationSeconds": {
        "balancer.placement.tolerations[].effect": "NoExecute"
    },
    "placement.topologySpreadConstraints[].minDomains": {
        "placement.topologySpreadConstraints[].whenUnsatisfiable": "DoNotSchedule"
    },
    "podTemplate.env[].valueFrom": {"podTemplate.env[].value": ABSENT},
    "model.partsSha256": {"model.url": "https://models.example.com/m-00001-of-00001.gguf"},
    # It has an effect only with such a URL.
    "model.s3": {"model.url": "s3://models/model.gguf"},
    "model.oci": {"model.url": "oci://registry.ai.svc/models/gemma:4b"},
    # It selects one of several.
    "autoscaling.behavior.scaleUp.selectPolicy": {
        "autoscaling.behavior.scaleUp.policies": _TWO_POLICIES
    },
    "autoscaling.behavior.scaleDown.selectPolicy": {
        "autoscaling.behavior.scaleDown.policies": _TWO_POLICIES
    },
    # It refers to one of them.
    "podTemplate.volumeMounts": {
        "podTemplate.volumes": [
            {"name": "certificates", "configMap": {"name": "certificates"}},
            {"name": "certificatesx", "emptyDir": {}},
        ]
    },
}
"""Other fields that a field, or the fields in it, requires. A new row needs a reason."""

EXCLUSIVE = [
    ("promptCache.claimName", "promptCache.node", "promptCache.emptyDir"),
    ("prime.prompts[].text", "prime.prompts[].chat"),
    (
        "gpu.resourceClaims[].resourceClaimTemplateName",
        "gpu.resourceClaims[].resourceClaimName",
    ),
]
"""Fields of which exactly one is set: a value in one of them replaces the others."""

OTHERS: Mapping[str, Json] = {
    "autoscaling.schedules[].cron": "0 9 * * *",
    "model.partsSha256[]": "ab" * 32,
}
"""Second values of fields whose example with an appended letter is invalid."""


@dataclass(frozen=True)
class Field:
    """One field of the spec, an item of a list of it, or a value of a map."""

    path: Path
    schema: Mapping[str, Json]

    @property
    def name(self) -> str:
        """Such as `model.adapters[].url`."""
        return ".".join(self.path).replace(".[]", ITEM).replace(".{}", VALUE)

    @cached_property
    def own_example(self) -> Json:
        """The example in its description; ABSENT if there is none."""
        _, found, text = self.schema.get("description", "").partition("Example: ")
        return yaml.safe_load(text) if found else ABSENT

    @cached_property
    def example(self) -> Json:
        """Its own example, or its part of the parent's example."""
        own = self.own_example
        if own is not ABSENT or self.path[-1] not in {ITEM, VALUE}:
            return own
        whole = by_path()[self.path[:-1]].example
        if whole is ABSENT:
            return ABSENT
        return whole[0] if self.path[-1] == ITEM else next(iter(whole.values()))


@cache
def by_path() -> Mapping[Path, Field]:
    """Each field of the spec."""
    (version,) = crd()["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return {field.path: field for field in _below(spec, ())}


def fields() -> list[Field]:
    """Each field of the spec, in order."""
    return list(by_path().values())


def _below(schema: Mapping[str, Json], path: Path) -> Iterator[Field]:
    parts = dict(schema.get("properties", {}))
    parts |= {ITEM: schema["items"]} if "items" in schema else {}
    more = schema.get("additionalProperties")
    parts |= {VALUE: more} if isinstance(more, dict) else {}
    for step, part in parts.items():
        yield Field((*path, step), part)
        yield from _below(part, (*path, step))


def path_of(name: str) -> Path:
    """Parse the name of a field into its path."""
    return tuple(name.replace(ITEM, f".{ITEM}").replace(VALUE, f".{VALUE}").split("."))


def placed(spec: Mapping[str, Json], path: Path, value: Json) -> dict[str, Json]:
    """Return the spec with this value at the path, or without the field for ABSENT.

    Parents of the field that are not in the spec are set to their examples.
    """
    result = copy.deepcopy(dict(spec))
    place: Json = result
    for depth, step in enumerate(path[:-1], start=1):
        if step == ITEM:
            place = place[0]
        elif step == VALUE:
            place = place[next(iter(place))]
        else:
            example = by_path()[path[:depth]].example
            place = place.setdefault(step, {} if example is ABSENT else copy.deepcopy(example))
    step = path[-1]
    key = 0 if step == ITEM else next(iter(place)) if step == VALUE else step
    if value is not ABSENT:
        place[key] = copy.deepcopy(value)
    elif step == ITEM or key in place:
        del place[key]
    if value is not ABSENT and value is not False:
        _remove_alternatives(place, path)
    return result


def _remove_alternatives(place: Json, path: Path) -> None:
    for paths in (list(map(path_of, group)) for group in EXCLUSIVE):
        if path in paths:
            for other in paths:
                if other != path:
                    place.pop(other[-1], None)


def with_needs(spec: Mapping[str, Json], field: Field) -> dict[str, Json]:
    """Return the spec with the fields that a field requires."""
    result = copy.deepcopy(dict(spec))
    for name, needs in NEEDS.items():
        if field.path[: len(path_of(name))] == path_of(name):
            for needed, value in needs.items():
                result = placed(result, path_of(needed), value)
    return result


def base(name: str) -> dict[str, Json]:
    """Return one of BASES as a complete spec."""
    spec: dict[str, Json] = raw_server(**BASES[name])["spec"]
    return spec


def valid(spec: Mapping[str, Json]) -> LlamaServer | None:
    """Parse a spec; None if it is invalid."""
    try:
        return parsed({**raw_server(), "spec": spec})
    except InvalidSpec:
        return None


def bounds(field: Field) -> list[Json]:
    """Members of the enum, bounds, and both values of a boolean, according to the schema."""
    schema = field.schema
    limits = [schema[limit] for limit in ("minimum", "maximum") if limit in schema]
    switch = [False, True] if schema.get("type") == "boolean" else []
    return [*schema.get("enum", []), *limits, *switch]


def values(field: Field) -> list[Json]:
    """Candidates for valid values: ABSENT, the example, the bounds, and a second text."""
    candidates = [ABSENT, field.example, *bounds(field)]
    if isinstance(field.example, str):
        candidates.append(OTHERS.get(field.name, f"{field.example}x"))
    return _distinct(candidates)


def bad_values(field: Field) -> list[Json]:
    """Values that the schema forbids: another type, beyond a bound, not in the enum."""
    return _distinct(
        [
            *_OF_OTHER_TYPES.get(_type(field.schema), ()),
            *(["nonsense"] if field.schema.keys() & {"enum", "pattern"} else []),
            *_beyond(field.schema),
            *_too_many(field),
            *_incomplete(field),
        ]
    )


def _beyond(schema: Mapping[str, Json]) -> Iterator[Json]:
    if "minimum" in schema:
        yield schema["minimum"] - 1
    if "maximum" in schema:
        yield schema["maximum"] + 1
    if "maxLength" in schema:
        yield "a" * (schema["maxLength"] + 1)
    if schema.get("minLength"):
        yield ""
    if schema.get("minItems"):
        yield []


def _too_many(field: Field) -> Iterator[Json]:
    if maximum := field.schema.get("maxItems"):
        yield [field.example[0]] * (maximum + 1)
    if maximum := field.schema.get("maxProperties"):
        value = next(iter(field.example.values()))
        yield {f"example.com/a{number}": value for number in range(maximum + 1)}


def _incomplete(field: Field) -> Iterator[Json]:
    for required in field.schema.get("required", []):
        if isinstance(field.example, dict):
            yield {name: value for name, value in field.example.items() if name != required}


_OF_OTHER_TYPES: Mapping[str, tuple[Json, ...]] = {
    "integer": ("many", "1", 1.5, True, [], {}),
    "number": ("many", "1", True, [], {}),
    "string": (7, 7.5, True, [], {}),
    "boolean": ("true", 1, [], {}),
    "array": ("some", 7, {}, True),
    "object": ("some", 7, [], True),
    "int-or-string": (1.5, True, [], {}, "many", "-1", -1),
    "any": (True, [], {}),
}


def _type(schema: Mapping[str, Json]) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "int-or-string"
    name: str = schema.get("type", "any")
    return name


def _distinct(values: list[Json]) -> list[Json]:
    """Remove duplicates. Unlike in Python, True and 1 are distinct."""
    by_text = {"ABSENT" if value is ABSENT else json.dumps(value): value for value in values}
    return list(by_text.values())
