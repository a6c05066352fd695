"""What a request can be sent to: the model of a LlamaServer, or of an external backend. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from slotkeeper.gateway.models import Model
from slotkeeper.gateway.target_config import Backend, Trigger
from slotkeeper.wire.message import Header

MODEL_SERVED = b"X-Model-Served"
"""Response header with the name of the model that served a request, where several may."""

_NOT_IN_HEADER = re.compile(r"[^!-~]")


@dataclass(frozen=True, slots=True)
class BackendModel:
    """A model of an external backend."""

    name: str
    backend: Backend
    upstream_name: str
    """Its name in requests to the backend."""

    @property
    def server(self) -> str:
        """The backend's name, for logs."""
        return self.backend.name


Target = Model | BackendModel


@dataclass(frozen=True, slots=True)
class Weighted:
    """A name for several targets, each of which gets a share of the requests."""

    name: str
    choices: tuple[tuple[Target, int], ...]
    """Targets with weights above 0; at least one."""

    @property
    def most_likely(self) -> Target:
        """The target with the largest weight."""
        return max(self.choices, key=lambda choice: choice[1])[0]

    def choose(self, point: float) -> Target:
        """Return the target at a point from 0 to below 1. Equal points have equal targets.

        The last target has the end of the range: with a larger weight it keeps its points.
        """
        at = point * sum(weight for _, weight in self.choices)
        for target, weight in self.choices:
            at -= weight
            if at < 0:
                return target
        return self.choices[-1][0]


Named = Target | Weighted
"""What a name for requests stands for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The targets that a request is sent to, one after the other."""

    targets: tuple[Target, ...]
    """At least one."""
    on: frozenset[Trigger] = frozenset()
    """The cases in which the next target gets the request."""
    reports_model: bool = False
    """The response has the header X-Model-Served."""
    skipped: tuple[tuple[Target, Trigger], ...] = ()
    """Targets that would have come before, and why they are not tried."""

    @property
    def first(self) -> Target:
        """The target that comes first if nothing is wrong."""
        return self.skipped[0][0] if self.skipped else self.targets[0]


@dataclass(frozen=True, slots=True)
class ShadowRule:
    """Which requests for a model are copied."""

    to: Model
    percent: int


def served_header(target: Target) -> Header:
    """Return the header with the name of the model that served a request."""
    return MODEL_SERVED, _NOT_IN_HEADER.sub("?", target.name).encode()


def backend_models(backends: Iterable[Backend]) -> dict[str, BackendModel]:
    """Return the models of all backends by name. Of several with one name the first counts."""
    found: dict[str, BackendModel] = {}
    for backend in backends:
        for name, upstream_name in backend.models:
            found.setdefault(name, BackendModel(name, backend, upstream_name))
    return found
