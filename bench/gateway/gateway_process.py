"""The gateway in a process of its own, without a cluster: its configuration is fixed.

It has the same parts as `slotkeeper gateway`, which reads LlamaServers from the API server and
connects to their Services.
"""

import argparse
import asyncio
import gc
import sys
import time

import uvloop

from bench.balancer.jobs import MODEL
from bench.processes import allow_many_files
from slotkeeper.api import gateway_memory
from slotkeeper.edge.access_log import AccessLog
from slotkeeper.gateway.proxy import Gateway
from slotkeeper.gateway.watch import ClusterFollower
from slotkeeper.wire.limits import Limits
from slotkeeper.wire.server import Server

_SERVER = {
    "metadata": {"name": MODEL, "uid": "1", "resourceVersion": "1"},
    "status": {
        "conditions": [{"type": "Ready", "status": "True", "reason": "Serving", "message": ""}],
        "readyReplicas": 1,
    },
}


async def serve(port: int, balancer: int, *, access_log: bool) -> None:
    """Serve clients on `port` until the process is killed; `balancer`: port of the only server."""
    gateway = Gateway(
        lambda _: ("127.0.0.1", balancer),
        AccessLog(
            sys.stdout if access_log else None, asyncio.get_running_loop().call_later, time.time
        ),
        name="default/bench",
        wall=time.time,
    )
    follower = ClusterFollower(gateway)
    follower.apply_gateway({"metadata": {"name": "bench"}, "spec": {"replicas": 1}})
    follower.apply_servers({MODEL: _SERVER})
    limits = Limits(max_buffered=gateway_memory.max_buffered(Limits().max_body))
    server = Server(gateway.handle, limits, gateway.body_admission)
    await server.listen("127.0.0.1", port)
    gc.collect()
    gc.freeze()
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.gateway.gateway_process")
    parser.add_argument("port", type=int)
    parser.add_argument("balancer", type=int)
    parser.add_argument("--access-log", action="store_true")
    options = parser.parse_args()
    allow_many_files()
    uvloop.run(serve(options.port, options.balancer, access_log=options.access_log))
