"""The names under which a client can request models, and what an unknown one results in. Pure."""

from collections.abc import Mapping

from slotkeeper.gateway.config import GatewayConfig
from slotkeeper.gateway.models import Model
from slotkeeper.gateway.planning import Fallbacks
from slotkeeper.gateway.targets import Named, ShadowRule, Target, Weighted, backend_models
from slotkeeper.wire.errors import HttpError

_MAX_LISTED = 20
"""Names in an error message. GET /v1/models lists all."""
_MAX_SHOWN = 100
"""Characters of a requested name in an error message."""


class Catalog:
    """Models and aliases, and which of them each API key may use."""

    def __init__(self, models: Mapping[str, Model], config: GatewayConfig) -> None:
        self._config = config
        # A prompt must not leave the cluster because a backend has a server's model name.
        targets: dict[str, Target] = {**backend_models(config.backends), **models}
        # An alias comes before a model of the same name, unless its own model is missing.
        aliases = {a: targets[name] for a, name in config.aliases.items() if name in targets}
        targets |= aliases
        routes = _routes(config, targets)
        of_routes = {a: routes[name] for a, name in config.aliases.items() if name in routes}
        self._all: dict[str, Named] = dict(sorted({**targets, **of_routes, **routes}.items()))
        self._by_key: dict[str, dict[str, Named]] = {}
        self.fallbacks: Fallbacks = {
            name: (tuple(targets[each] for each in fallback.to if each in targets), fallback.on)
            for name, fallback in config.fallbacks.items()
        }
        self.shadows = {
            name: ShadowRule(to, shadow.percent)
            for name, shadow in config.shadows.items()
            # The idle slots of an external backend are not known.
            if isinstance(to := targets.get(shadow.to), Model)
        }

    def names(self, key: str | None) -> Mapping[str, Named]:
        """Return the names that an API key may use, in order; `key` None: no key is required."""
        allowed = None if key is None else self._config.models_by_key.get(key)
        if key is None or allowed is None:
            return self._all
        names = self._by_key.get(key)
        if names is None:
            names = self._by_key[key] = {
                name: model
                for name, model in self._all.items()
                if name in allowed or model.name in allowed
            }
        return names

    def find(self, name: str | None, key: str | None) -> Named:
        """Return the model that a request is for; `name` None: it names none.

        Raises HttpError with status 404 or 400. A model that the key may not use does not exist for
        it: a key must not learn what others use.
        """
        names = self.names(key)
        if name is not None:
            model = names.get(name)
            if model is None:
                raise _not_found(name, names)
            return model
        default = self._config.default_model
        if default is not None and default in names:
            return names[default]
        different = {model.name: model for model in names.values()}
        if default is None and len(different) == 1:
            return next(iter(different.values()))
        raise HttpError(
            400,
            "model_required",
            "the request names no model, and there is no default: set the field model, the header "
            f"X-Model or the path /models/NAME/...; {_listed(names)}",
        )


def _routes(config: GatewayConfig, targets: Mapping[str, Target]) -> dict[str, Weighted]:
    """The routes with at least one model that exists."""
    routes = {}
    for name, route in config.routes.items():
        choices = tuple((targets[each], w) for each, w in route.targets if w and each in targets)
        if choices:
            routes[name] = Weighted(name, choices)
    return routes


def _not_found(name: str, names: Mapping[str, Named]) -> HttpError:
    shown = name if len(name) <= _MAX_SHOWN else f"{name[:_MAX_SHOWN]}…"
    return HttpError(
        404, "model_not_found", f"the model {shown!r} does not exist; {_listed(names)}"
    )


def _listed(names: Mapping[str, Named]) -> str:
    if not names:
        return "there is no model"
    listed = ", ".join([*names][:_MAX_LISTED])
    more = len(names) - _MAX_LISTED
    return f"models: {listed} and {more} more" if more > 0 else f"models: {listed}"
