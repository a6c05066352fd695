"""What a LlamaGateway specifies beyond its own servers, decoded. Pure."""

from dataclasses import dataclass
from typing import Literal

Trigger = Literal["Full", "Failed", "Waking", "Timeout"]
"""The cases in which a request is sent to a fallback."""


@dataclass(frozen=True, slots=True)
class Backend:
    """An OpenAI-compatible server that is not a LlamaServer."""

    name: str
    tls: bool
    host: str
    """A name or an address, without brackets."""
    port: int
    path: str
    """Of its API, which replaces /v1 of a request's path. Without a slash at the end."""
    has_key: bool = False
    """A Secret has an API key for it."""
    has_ca: bool = False
    """A Secret has the certificate authorities for it."""
    first_byte_seconds: float | None = None
    """From a request to the first byte of its response; None: as of servers."""
    models: tuple[tuple[str, str], ...] = ()
    """The name of each model, for clients and for the backend."""

    @property
    def authority(self) -> str:
        """The value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Fallback:
    """Models that serve requests in place of another one."""

    to: tuple[str, ...]
    """Names of models or aliases, in the order in which they are tried."""
    on: frozenset[Trigger]


@dataclass(frozen=True, slots=True)
class Shadow:
    """Copies of the requests for a model."""

    to: str
    """Name of a model, or an alias."""
    percent: int


@dataclass(frozen=True, slots=True)
class Route:
    """A name for several models."""

    targets: tuple[tuple[str, int], ...]
    """Names of models or aliases, with their weights."""
