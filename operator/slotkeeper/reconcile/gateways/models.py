"""The models of a gateway, from the LlamaServers that it selects. Pure.

Their state is that of api/model_state.py, by which the gateway's pods route too.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from slotkeeper.api.gateway import LlamaGateway
from slotkeeper.api.gateway_status import MAX_MESSAGE, GatewayModel
from slotkeeper.api.model_state import ModelState, state_of
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.kube.cluster import UNREADABLE, Manifest
from slotkeeper.kube.objects import Key
from slotkeeper.reconcile.observe.problem import Problem

MAX_NAMED = 5
"""Names in a message."""


@dataclass(frozen=True)
class ServedModel:
    """What gateways read of one LlamaServer."""

    server: Key
    created: str
    """RFC 3339, which sorts as text."""
    labels: Mapping[str, str]
    name: str
    """Of the model."""
    state: ModelState
    message: str

    @property
    def age_order(self) -> tuple[str, Key]:
        """Sorts the oldest first; by name where two are of the same second."""
        return self.created, self.server


def served_model(raw: Manifest) -> ServedModel | None:
    """Read a LlamaServer; None for one that is being deleted.

    It may break any rule, since the API server may have stored it under an older schema: only its
    own model suffers.
    """
    metadata = raw["metadata"]
    if "deletionTimestamp" in metadata:
        return None
    key = Key(metadata["namespace"], metadata["name"])
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    alias = (spec.get("model") or {}).get("alias")
    state, message = state_of(spec, status)
    if reason := raw.get(UNREADABLE):
        state, message = "Failed", f"the resource cannot be read: {reason}"
    return ServedModel(
        server=key,
        created=str(metadata.get("creationTimestamp", "")),
        labels=metadata.get("labels") or {},
        name=alias if isinstance(alias, str) and alias else key.name,
        state=state,
        message=_text(message),
    )


@dataclass(frozen=True)
class Models:
    """The models of one gateway."""

    served: Sequence[ServedModel]
    """One for each name, sorted by name."""
    selected: Sequence[Key]
    """All selected servers, the oldest first, with those whose name an older one has."""
    problems: Sequence[Problem]

    @property
    def reported(self) -> list[GatewayModel]:
        """The models as the status shows them."""
        return [
            GatewayModel(
                name=model.name,
                server=model.server.name,
                state=model.state,
                message=model.message,
            )
            for model in self.served
        ]


def models_of(gateway: LlamaGateway, servers: Iterable[ServedModel]) -> Models:
    """The models of a gateway; `servers`: those of its namespace."""
    selected = selected_by(gateway, servers)
    by_name: dict[str, ServedModel] = {}
    duplicates = []
    for model in selected:
        first = by_name.setdefault(model.name, model)
        if first is not model:
            duplicates.append(_duplicate(first, model))
    external, repeated = _external_models(gateway, by_name)
    duplicates += repeated
    unknown = _unknown(gateway, by_name.keys(), external)
    problems = [
        *(Problem(Reason.DUPLICATE_MODEL, message) for message in _listed(duplicates)),
        *(Problem(Reason.UNKNOWN_MODEL, message) for message in _listed(unknown)),
    ]
    served = [by_name[name] for name in sorted(by_name)]
    return Models(served, [model.server for model in selected], problems)


def selected_by(gateway: LlamaGateway, servers: Iterable[ServedModel]) -> list[ServedModel]:
    """The models of the selected servers, the oldest first; `servers`: those of its namespace."""
    selector = gateway.spec.server_selector
    selected = (server for server in servers if selector.matches(server.labels))
    return sorted(selected, key=lambda each: each.age_order)


def _duplicate(first: ServedModel, other: ServedModel) -> str:
    return (
        f"LlamaServers {first.server.name} and {other.server.name} have the model name "
        f"{first.name}; the older one, {first.server.name}, is used: set another model.alias"
    )


def _external_models(
    gateway: LlamaGateway, served: Mapping[str, ServedModel]
) -> tuple[set[str], list[str]]:
    """The names of the models of external backends, and messages on those that are not used."""
    first: dict[str, str] = {}  # backend by model
    messages = []
    for backend in gateway.spec.external_backends:
        for model in backend.models:
            used = first.setdefault(model.name, backend.name)
            if model.name in served:
                messages.append(
                    f"external backend {backend.name} has the model name {model.name} of "
                    f"LlamaServer {served[model.name].server.name}, which is used: set another name"
                )
            elif used != backend.name:
                messages.append(
                    f"external backends {used} and {backend.name} have the model name "
                    f"{model.name}; the first one, {used}, is used: set another name"
                )
    return set(first), messages


def _unknown(
    gateway: LlamaGateway, served: Collection[str], external: Collection[str]
) -> list[str]:
    """Messages on names in the spec that refer to no model."""
    models = {*served, *external}
    spec = gateway.spec
    routes = {route.name for route in spec.routes}
    usable = {*models, *spec.aliases}  # by fallbacks and routes
    of_keys = spec.api_keys.models if spec.api_keys else {}
    references = [
        *((f"API key {key}", {*names}, usable | routes) for key, names in of_keys.items()),
        *((f"alias {alias}", {model} - routes, models) for alias, model in spec.aliases.items()),
        *((f"fallback for {each.model}", {*each.to}, usable) for each in spec.fallbacks),
        *(
            (f"route {each.name}", {to.model for to in each.targets}, usable)
            for each in spec.routes
        ),
    ]
    messages = [
        f"{where} refers to {name}, which no selected LlamaServer serves, nor an external backend: "
        f"correct it, spec.serverSelector or spec.externalBackends"
        for where, names, existing in sorted(references, key=lambda each: each[0])
        for name in sorted(names)
        if name not in existing
    ]
    messages += [
        f"fallback for {each.model}, which is neither a model nor a route: correct spec.fallbacks"
        for each in spec.fallbacks
        if each.model not in models and each.model not in routes
    ]
    by_alias = {*served, *(alias for alias, model in spec.aliases.items() if model in served)}
    messages += [
        f"shadow of {each.model} is for {each.to}, which no selected LlamaServer serves: correct "
        "spec.shadow"
        for each in spec.shadow
        if each.to not in by_alias
    ]
    default = spec.default_model
    if default is not None and default not in usable and default not in routes:
        messages.append(
            f"defaultModel {default} is neither an alias nor a route, and neither a selected "
            "LlamaServer nor an external backend serves it: correct spec.defaultModel or "
            "spec.serverSelector"
        )
    return messages


def _listed(messages: Sequence[str]) -> list[str]:
    """At most one message, with the first of them and how many more there are."""
    if not messages:
        return []
    more = len(messages) - MAX_NAMED
    shown = "; ".join(messages[:MAX_NAMED])
    return [f"{shown}; and {more} more" if more > 0 else shown]


def _text(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE - 1]}…"
