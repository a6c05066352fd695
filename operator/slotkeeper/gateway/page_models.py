"""The models that the page shows to an API key. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from slotkeeper.gateway.models import Model
from slotkeeper.gateway.page.state import PageModel


def page_models(
    names: Mapping[str, Model],
    status: Callable[[str], Mapping[str, Any] | None],
    rate: Callable[[str], float],
) -> list[PageModel]:
    """Return one PageModel for each server behind `names`: those that an API key may use.

    `status` returns the status of a LlamaServer, `rate` the tokens per second of a model.
    """
    by_server: dict[str, list[str]] = {}
    for name, model in names.items():
        by_server.setdefault(model.server, []).append(name)
    found = []
    for server, usable in by_server.items():
        model = names[usable[0]]
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
