"""List objects of a kind, watch them for changes, and list them again when a watch ends."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping

from slotkeeper.backoff import Backoff
from slotkeeper.kube.cluster import ApiError, Cluster, Gone, Kind, Manifest

_log = logging.getLogger(__name__)
_RETRY = Backoff(0.1, 5.0)


async def list_and_watch(
    cluster: Cluster,
    kind: Kind,
    namespace: str,
    labels: Mapping[str, str] | None = None,
    *,
    name: str = "",
    on_contact: Callable[[], None] = lambda: None,
) -> AsyncIterator[dict[str, Manifest]]:
    """Yield the objects that `Cluster.list` returns, by name: now, and after each change.

    Never returns. While the API server does not respond nothing is yielded: the last objects remain
    the best known state. Whatever ends a watch, all objects are listed again, so that no lost event
    is missed for long. `on_contact` is called whenever the API server has confirmed what was
    yielded last, also without a change.
    """
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        began = loop.time()
        try:
            listing = await cluster.list(kind, namespace, labels, name=name)
            objects = {each["metadata"]["name"]: each for each in listing.items}
            on_contact()
            yield objects
            watch = cluster.watch(kind, namespace, labels, listing.resource_version, name=name)
            async for event in watch:
                failures = 0
                on_contact()
                if event.type == "BOOKMARK":
                    continue
                changed = event.object["metadata"]["name"]
                if event.type == "DELETED":
                    objects.pop(changed, None)
                else:
                    objects[changed] = event.object
                yield objects
        except Gone:
            pass  # the next iteration lists again
        except ApiError as error:
            _log.warning("watch of %s in namespace %s failed: %s", kind.plural, namespace, error)
        if loop.time() - began > _RETRY.maximum:
            # The watch worked for a while, even if there was no event.
            failures = 0
        failures += 1
        await asyncio.sleep(_RETRY.delay(failures))
