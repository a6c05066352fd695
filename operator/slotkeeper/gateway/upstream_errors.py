"""Error responses of the gateway for servers and backends that fail. Pure."""

from slotkeeper.error_text import describe
from slotkeeper.gateway.backends.connect import AddressNotAllowed
from slotkeeper.gateway.models import Model
from slotkeeper.gateway.targets import Target
from slotkeeper.wire.errors import HttpError


def unreachable(model: Target, error: OSError) -> HttpError:
    """502: no connection."""
    if isinstance(model, Model):
        state = f"{model.state} ({model.message})" if model.message else model.state
        return HttpError(
            502,
            "server_unreachable",
            f"cannot connect to the server of model {model.name}, which is {state}: "
            f"{describe(error)}",
        )
    code = "backend_unreachable"
    if isinstance(error, AddressNotAllowed):
        code = "backend_address_not_allowed"
    return HttpError(502, code, f"cannot connect to backend {model.server}: {describe(error)}")


def lost(model: Target, reason: str) -> HttpError:
    """502: the connection was lost before the response."""
    if isinstance(model, Model):
        message = f"the server of model {model.name} failed to respond: {reason}"
        return HttpError(502, "server_failed", message)
    return HttpError(502, "backend_failed", f"backend {model.server} failed to respond: {reason}")


def aborted(model: Target, reason: str) -> str:
    """The message that ends a response in which something failed."""
    what = (
        f"the server of model {model.name}"
        if isinstance(model, Model)
        else f"backend {model.server}"
    )
    return f"{what} failed: {reason}"


def not_passed_on(model: Target) -> HttpError:
    """502: an error response that is not passed on."""
    return lost(model, "its error response is compressed or too large")


def incomplete_error(model: Target) -> HttpError:
    """502: the head of an error response, and no end of it."""
    return lost(model, "its error response is not complete")


def no_response(model: Target, seconds: float) -> HttpError:
    """504: no response in time."""
    if isinstance(model, Model):
        message = f"the server of model {model.name} has sent no response for {seconds:g} s"
        return HttpError(504, "server_timeout", message)
    message = f"backend {model.server} has sent no response for {seconds:g} s"
    return HttpError(504, "backend_timeout", message)


def internal_error() -> HttpError:
    """500: a bug."""
    return HttpError(500, "internal_error", "internal error while sending the request")
