"""What there is of a kind, and whenever that changes: list, watch, and list again."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping

from slotkeeper.backoff import Backoff
from slotkeeper.kube.cluster import ApiError, Cluster, Gone, Kind, Manifest

_log = logging.getLogger(__name__)
_RETRY = Backoff(0.1, 5.0)


async def follow(
    cluster: Cluster,
    kind: Kind,
    namespace: str,
    labels: Mapping[str, str] | None = None,
    *,
    name: str = "",
) -> AsyncIterator[dict[str, Manifest]]:
    """The objects that `Cluster.list` lists, by name: at once, and after each change. Never ends.

    While the API server does not answer, nothing is said: what was said last stays true as far as
    anybody knows. Whatever ends a watch, all is listed again, so that no lost event is missed for
    long.
    """
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        began = loop.time()
        try:
            listing = await cluster.list(kind, namespace, labels, name=name)
            objects = {each["metadata"]["name"]: each for each in listing.items}
            yield objects
            watch = cluster.watch(kind, namespace, labels, listing.resource_version, name=name)
            async for event in watch:
                failures = 0
                if event.type == "BOOKMARK":
                    continue
                changed = event.object["metadata"]["name"]
                if event.type == "DELETED":
                    objects.pop(changed, None)
                else:
                    objects[changed] = event.object
                yield objects
        except Gone:
            pass  # that is what listing again is for
        except ApiError as error:
            _log.warning("%s of %s: %s", kind.plural, namespace, error)
        if loop.time() - began > _RETRY.maximum:
            # It went well for a while, also where nothing happened to tell of.
            failures = 0
        failures += 1
        await asyncio.sleep(_RETRY.delay(failures))
