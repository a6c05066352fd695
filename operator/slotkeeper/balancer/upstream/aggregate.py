"""What the llama-servers report of themselves, for all replicas together."""

import asyncio
import logging
from collections.abc import Mapping

from slotkeeper.balancer.upstream.replicas import ReplicaSet
from slotkeeper.error_text import describe
from slotkeeper.llamacpp.metrics import Series, SummedMetrics, parse_metrics
from slotkeeper.llamacpp.model_info import ModelInfo, parse_model_info

_log = logging.getLogger(__name__)

_METRICS_SECONDS = 1.0

_MAX_BUILD = 100
"""Characters of a build's name."""


class Aggregate:
    """Reads a replica's model when it becomes ready, and its metrics when they are requested."""

    def __init__(self, replicas: ReplicaSet) -> None:
        self.model = ModelInfo()
        """Of the replica that became ready last, also after it has ended."""
        self._replicas = replicas
        self._builds: dict[str, str] = {}
        """By replica, as of its last description."""
        self._summed = SummedMetrics()
        self._updating: asyncio.Future[None] | None = None
        self._updated = float("-inf")

    async def describe(self, name: str) -> None:
        """Read the model of a replica. Keeps the last one if it does not respond."""
        try:
            models = await self._replicas.request(name, "/v1/models")
            props = await self._replicas.request(name, "/props")
        except OSError as error:
            _log.debug("replica %s does not describe its model: %s", name, describe(error))
            return
        self.model = parse_model_info(models, props)
        build = self.model.props.get("build_info")
        if isinstance(build, str):
            self._builds[name] = build[:_MAX_BUILD]

    @property
    def builds(self) -> tuple[str, ...]:
        """The builds of llama-server that the present replicas report, sorted."""
        present = set(self._replicas.names)
        self._builds = {name: build for name, build in self._builds.items() if name in present}
        return tuple(sorted(set(self._builds.values())))

    @property
    def last_metrics(self) -> Mapping[str, Series]:
        """The sum of all replicas' metrics, as of the last update."""
        return self._summed.total()

    async def update_metrics(self) -> None:
        """Read the metrics of all replicas.

        At most once a second, so that many requests for it are one request for each replica. A
        replica that does not respond in time counts as at the last time.
        """
        loop = asyncio.get_running_loop()
        if self._updating is None and loop.time() - self._updated >= _METRICS_SECONDS:
            self._updating = loop.create_task(self._update())
        if self._updating:
            await asyncio.shield(self._updating)

    async def _update(self) -> None:
        names = self._replicas.joined
        try:
            self._summed.keep(self._replicas.names)
            await asyncio.gather(*(self._update_one(name) for name in names))
        finally:
            self._updated = asyncio.get_running_loop().time()
            self._updating = None

    async def _update_one(self, name: str) -> None:
        try:
            body = await self._replicas.request(name, "/metrics")
        except OSError:
            return
        self._summed.update(name, parse_metrics(body))
