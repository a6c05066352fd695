"""The configuration of a gateway: the spec of its LlamaGateway, decoded. Pure.

The API server has validated the spec against the CRD, but perhaps against that of another release.
So each field is checked again. Unknown fields are ignored.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args
from urllib.parse import urlsplit

from slotkeeper.api import quantity
from slotkeeper.gateway.target_config import Backend, Fallback, Route, Shadow, Trigger

_MAX_ITEMS = 1000
"""Of a list or map. The CRD allows a tenth of that."""
_MAX_NUMBER = 10**9
_OPERATORS = frozenset(("In", "NotIn", "Exists", "DoesNotExist"))

T = TypeVar("T")


class BadSpec(ValueError):  # noqa: N818 (the spec is bad; nothing failed here)
    """A field of the spec is not as expected. The message states which one."""


@dataclass(frozen=True, slots=True)
class LabelRequirement:
    """A requirement on one label: In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: frozenset[str]

    def matches(self, labels: Mapping[str, Any]) -> bool:
        """Whether these labels meet the requirement."""
        if self.operator in {"Exists", "DoesNotExist"}:
            return (self.key in labels) == (self.operator == "Exists")
        return (labels.get(self.key) in self.values) == (self.operator == "In")


@dataclass(frozen=True, slots=True)
class Selector:
    """A label selector. An empty one selects all objects."""

    labels: Mapping[str, str] = field(default_factory=dict)
    requirements: tuple[LabelRequirement, ...] = ()

    def matches(self, labels: Mapping[str, Any]) -> bool:
        """Whether an object with these labels is selected."""
        return all(labels.get(key) == value for key, value in self.labels.items()) and all(
            requirement.matches(labels) for requirement in self.requirements
        )


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Limits of one API key, for all gateway pods together; None: no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_running_requests: int | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Timeouts of forwarded requests, in seconds."""

    connect: float = 5
    """Of one attempt to connect to a server."""
    first_byte: float = 630
    """From sending a request to the head of its response."""
    idle: float = 300
    """Between two pieces of a response."""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """What a LlamaGateway specifies for its processes."""

    selector: Selector = Selector()
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Further names of models, with the model of each."""
    default_model: str | None = None
    """Model, or alias, of requests that name none."""
    models_by_key: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Models and aliases that these API keys may use. All others may use all."""
    max_priorities: Mapping[str, int] = field(default_factory=dict)
    """Highest X-Priority of API keys; 0 for all others."""
    limits: KeyLimits = KeyLimits()
    limits_by_key: Mapping[str, KeyLimits] = field(default_factory=dict)
    """They replace `limits` for these API keys."""
    allowed_origins: frozenset[bytes] | None = None
    """Origins of pages that may send requests; None: any."""
    timeouts: Timeouts = Timeouts()
    replicas: int = 1
    """Gateway pods, which share the limits of an API key."""
    batches: bool = False
    """Files and batches are served."""
    max_body_bytes: int | None = None
    """Maximum size of a request's body; None: that of the command line."""
    usage_log: bool = False
    """Whether each forwarded request has a line in the usage log."""
    backends: tuple[Backend, ...] = ()
    """Other servers whose models are served too."""
    fallbacks: Mapping[str, Fallback] = field(default_factory=dict)
    """By the name of the model, or of the route, in whose place they serve."""
    routes: Mapping[str, Route] = field(default_factory=dict)
    """By name."""
    shadows: Mapping[str, Shadow] = field(default_factory=dict)
    """By the name of the model whose requests are copied."""

    def limits_of(self, key: str) -> KeyLimits:
        """Return the limits of an API key."""
        return self.limits_by_key.get(key, self.limits)

    @property
    def named_keys(self) -> frozenset[str]:
        """The names of API keys that have rules of their own."""
        return frozenset((*self.models_by_key, *self.max_priorities, *self.limits_by_key))


def parse_config(spec: Any) -> GatewayConfig:
    """Return the configuration that a spec, as a JSON tree, describes. Raises BadSpec."""
    tree = _object(spec, "spec")
    keys = _object(tree.get("apiKeys"), "apiKeys")
    return GatewayConfig(
        selector=_selector(tree.get("serverSelector"), "serverSelector"),
        aliases=_map(tree.get("aliases"), "aliases", _text),
        default_model=_optional(tree.get("defaultModel"), "defaultModel", _text),
        models_by_key=_map(keys.get("models"), "apiKeys.models", _texts),
        max_priorities=_map(keys.get("maxPriorities"), "apiKeys.maxPriorities", _count),
        limits=_limits(keys.get("limits"), "apiKeys.limits"),
        limits_by_key=_map(keys.get("limitsByKey"), "apiKeys.limitsByKey", _limits),
        allowed_origins=_origins(tree.get("cors"), "cors"),
        timeouts=_timeouts(tree.get("timeouts"), "timeouts"),
        replicas=max(1, _optional(tree.get("replicas"), "replicas", _count) or 1),
        batches=_optional(tree.get("batches"), "batches", _object) is not None,
        max_body_bytes=_optional(tree.get("maxBodyBytes"), "maxBodyBytes", _bytes),
        usage_log=_optional(tree.get("usageLog"), "usageLog", _text) == "Stdout",
        backends=_items(tree.get("externalBackends"), "externalBackends", _backend),
        fallbacks=dict(_items(tree.get("fallbacks"), "fallbacks", _fallback)),
        routes=dict(_items(tree.get("routes"), "routes", _route)),
        shadows=dict(_items(tree.get("shadow"), "shadow", _shadow)),
    )


def _fallback(value: Any, path: str) -> tuple[str, Fallback]:
    tree = _object(value, path)
    cases = _items(tree.get("when"), f"{path}.when", _text) or ("Full", "Failed", "Timeout")
    # Cases of a later release never occur.
    on = frozenset(each for each in get_args(Trigger) if each in cases)
    to = _items(tree.get("to"), f"{path}.to", _text)
    return _text(tree.get("model"), f"{path}.model"), Fallback(to, on)


def _route(value: Any, path: str) -> tuple[str, Route]:
    tree = _object(value, path)
    targets = _items(tree.get("targets"), f"{path}.targets", _weighted)
    return _text(tree.get("name"), f"{path}.name"), Route(targets)


def _shadow(value: Any, path: str) -> tuple[str, Shadow]:
    tree = _object(value, path)
    to = _text(tree.get("to"), f"{path}.to")
    percent = _count(tree.get("percent"), f"{path}.percent")
    return _text(tree.get("model"), f"{path}.model"), Shadow(to, min(100, percent))


def _weighted(value: Any, path: str) -> tuple[str, int]:
    tree = _object(value, path)
    return _text(tree.get("model"), f"{path}.model"), _count(tree.get("weight"), f"{path}.weight")


def _backend(value: Any, path: str) -> Backend:
    tree = _object(value, path)
    url = _text(tree.get("url"), f"{path}.url")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if (
        not host
        or parts.scheme not in {"http", "https"}
        or not (url.isascii() and url.isprintable())
    ):
        raise BadSpec(f"{path}.url: not a URL")
    tls = parts.scheme == "https"
    return Backend(
        name=_text(tree.get("name"), f"{path}.name"),
        tls=tls,
        host=host,
        port=port or (443 if tls else 80),
        path=parts.path.rstrip("/"),
        has_key=tree.get("secretRef") is not None,
        has_ca=tree.get("caSecretRef") is not None,
        first_byte_seconds=_optional(
            tree.get("firstByteSeconds"), f"{path}.firstByteSeconds", _count
        ),
        models=_items(tree.get("models"), f"{path}.models", _external_model),
    )


def _external_model(value: Any, path: str) -> tuple[str, str]:
    tree = _object(value, path)
    name = _text(tree.get("name"), f"{path}.name")
    return name, _optional(tree.get("upstreamName"), f"{path}.upstreamName", _text) or name


def _selector(value: Any, path: str) -> Selector:
    tree = _object(value, path)
    items = _list(tree.get("matchExpressions"), f"{path}.matchExpressions")
    return Selector(
        _map(tree.get("matchLabels"), f"{path}.matchLabels", _text),
        tuple(_requirement(each, f"{path}.matchExpressions") for each in items),
    )


def _requirement(value: Any, path: str) -> LabelRequirement:
    tree = _object(value, path)
    operator = _text(tree.get("operator"), f"{path}.operator")
    if operator not in _OPERATORS:
        raise BadSpec(f"{path}.operator: {operator[:50]!r} is unknown")
    key = _text(tree.get("key"), f"{path}.key")
    return LabelRequirement(key, operator, _texts(tree.get("values"), f"{path}.values"))


def _limits(value: Any, path: str) -> KeyLimits:
    tree = _object(value, path)

    def limit(name: str) -> int | None:
        return _optional(tree.get(name), f"{path}.{name}", _count)

    return KeyLimits(
        limit("requestsPerMinute"), limit("tokensPerMinute"), limit("maxRunningRequests")
    )


def _timeouts(value: Any, path: str) -> Timeouts:
    tree = _object(value, path)
    default = Timeouts()

    def seconds(name: str, otherwise: float) -> float:
        return _optional(tree.get(name), f"{path}.{name}", _count) or otherwise

    return Timeouts(
        seconds("connectSeconds", default.connect),
        seconds("firstByteSeconds", default.first_byte),
        seconds("idleSeconds", default.idle),
    )


def _origins(value: Any, path: str) -> frozenset[bytes] | None:
    tree = _object(value, path)
    if tree.get("allowedOrigins") is None:
        return None
    origins = _texts(tree["allowedOrigins"], f"{path}.allowedOrigins")
    return None if "*" in origins else frozenset(each.encode() for each in origins)


def _optional(value: Any, path: str, parse: Callable[[Any, str], T]) -> T | None:
    return None if value is None else parse(value, path)


def _map(value: Any, path: str, parse: Callable[[Any, str], T]) -> dict[str, T]:
    tree = _object(value, path)
    return {name: parse(each, f"{path}.{name[:50]}") for name, each in tree.items()}


def _object(value: Any, path: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > _MAX_ITEMS:
        raise BadSpec(f"{path}: not an object of up to {_MAX_ITEMS} fields")
    return value


def _list(value: Any, path: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > _MAX_ITEMS:
        raise BadSpec(f"{path}: not a list of up to {_MAX_ITEMS} items")
    return value


def _items(value: Any, path: str, parse: Callable[[Any, str], T]) -> tuple[T, ...]:
    return tuple(parse(each, f"{path}[{number}]") for number, each in enumerate(_list(value, path)))


def _texts(value: Any, path: str) -> frozenset[str]:
    return frozenset(_text(each, path) for each in _list(value, path))


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise BadSpec(f"{path}: not a string")
    return value


def _count(value: Any, path: str) -> int:
    # In Python a bool is an int too.
    if type(value) is not int or not 0 <= value <= _MAX_NUMBER:
        raise BadSpec(f"{path}: not a whole number from 0 to {_MAX_NUMBER}")
    return value


def _bytes(value: Any, path: str) -> int:
    if type(value) not in {int, str}:
        raise BadSpec(f"{path}: not a quantity")
    try:
        return int(quantity.parse(value))
    except ValueError as error:
        raise BadSpec(f"{path}: {str(error)[:100]}") from None
