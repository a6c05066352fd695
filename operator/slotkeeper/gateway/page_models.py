"""The models that the page shows to an API key. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from slotkeeper.gateway.models import Model
from slotkeeper.gateway.page.state import PageModel
from slotkeeper.gateway.targets import Named


def page_models(
    names: Mapping[str, Named],
    status: Callable[[str], Mapping[str, Any] | None],
    rate: Callable[[str], float],
) -> list[PageModel]:
    """Return one PageModel for each server behind `names`: those that an API key may use.

    `status` returns the status of a LlamaServer, `rate` the tokens per second of a model.
    """
    by_server: dict[str, tuple[Model, list[str]]] = {}
    for name, target in names.items():
        if isinstance(target, Model):
            by_server.setdefault(target.server, (target, []))[1].append(name)
    found = []
    for server, (model, usable) in by_server.items():
        # A key may be allowed an alias only: the page offers what the key may request.
        name = model.name if model.name in usable else usable[0]
        found.append(
            PageModel(
                name=name,
                server=server,
                state=model.state,
                message=model.message,
                aliases=[each for each in usable if each != name],
                status=status(server),
                tokens_per_second=rate(model.name),
            )
        )
    return found
