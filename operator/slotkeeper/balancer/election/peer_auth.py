"""Proofs between the balancers of one server: that a relay or a probe is from one of them.

Each process has a random secret. For each receiver it derives a key from the secret, and publishes
the key's SHA-256 digest on its metrics port. It sends the key only to that receiver, whose address
is from the EndpointSlices. The receiver reads the digest from the sender's address, also from the
EndpointSlices, and so knows that the key is from the process at that address.

A digest reveals no key, and a key is worthless to all but its receiver: not even the next pod that
gets the address of a receiver that has ended can use it elsewhere. Nothing is stored, no permission
is needed beyond EndpointSlices, and each restart replaces all keys. A Secret would need an operator
that may create Secrets, and a TokenReview a permission for the whole cluster.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from slotkeeper.balancer.election.peers import Peer, PeerDirectory, host_and_port
from slotkeeper.bounded_json import parse
from slotkeeper.wire.http_get import get

HEADER = b"x-slotkeeper-peer"
"""Name of the header with a proof, in lower case. Its value is `NAME KEY`: of the sender's pod, and
its key for the receiver."""

DIGEST_PATH = "/peer/digest"

_FETCH_SECONDS = 1.0
_MAX_BYTES = 1024
"""Of a response with a digest, which has a hundred."""
_MIN_INTERVAL = 0.1
"""Seconds between two fetches of a balancer's digest: anyone may send wrong proofs."""


async def fetch_digest(peer: Peer, receiver: str) -> str:
    """Return the digest of the peer's key for `receiver`. Raises OSError or ValueError."""
    path = f"{DIGEST_PATH}?{urlencode({'for': receiver})}"
    address = host_and_port(peer.metrics)
    status, body = await get(*address, path, seconds=_FETCH_SECONDS, max_bytes=_MAX_BYTES)
    tree = parse(body, max_bytes=_MAX_BYTES) if status == 200 else None
    digest = tree.get("digest") if isinstance(tree, dict) else None
    if not isinstance(digest, str):
        raise ValueError(f"no digest from {peer.metrics}: status {status}")
    return digest


class PeerAuth:
    """Creates this balancer's proofs, and verifies those of others. `secret`: of this process."""

    def __init__(
        self,
        peers: PeerDirectory,
        secret: bytes,
        fetch: Callable[[Peer, str], Awaitable[str]] = fetch_digest,
    ) -> None:
        self.peers = peers
        self._secret = secret
        self._fetch = fetch
        self._digests: dict[Peer, str] = {}
        self._fetching: dict[Peer, asyncio.Task[None]] = {}
        self._fetched_at: dict[Peer, float] = {}

    def proof(self, receiver: str) -> bytes:
        """Return the header's value for a request to the balancer `receiver`."""
        return f"{self.peers.identity} {self._key(receiver)}".encode()

    def digest(self, receiver: str) -> str:
        """Return the public digest of this balancer's key for `receiver`."""
        return _digest(self._key(receiver).encode())

    def verified(self, proof: bytes) -> str | None:
        """Return the name of the balancer that sent a proof, None if it is wrong or not known yet.

        Does no I/O: a proof is known once `verify` has accepted it.
        """
        identity, _, key = proof.partition(b" ")
        peer = self.peers.find(identity.decode("ascii", "replace"))
        digest = self._digests.get(peer) if peer else None
        if peer and digest and hmac.compare_digest(_digest(key), digest):
            return peer.identity
        return None

    async def verify(self, proof: bytes) -> str | None:
        """Return the name of the balancer that sent a proof, None if it is wrong.

        Reads the digest from the balancer that the proof names, if that is a peer.
        """
        if identity := self.verified(proof):
            return identity
        name = proof.partition(b" ")[0].decode("ascii", "replace")
        peer = self.peers.find(name)
        if peer is None or not await self._update_digest(peer):
            return None
        return self.verified(proof)

    async def _update_digest(self, peer: Peer) -> bool:
        loop = asyncio.get_running_loop()
        fetching = self._fetching.get(peer)
        if fetching is None:
            if loop.time() < self._fetched_at.get(peer, float("-inf")) + _MIN_INTERVAL:
                return False
            fetching = self._fetching[peer] = loop.create_task(self._read_digest(peer))
        # Shared by all that wait: one that is cancelled must not end it for the others.
        await asyncio.shield(fetching)
        return True

    async def _read_digest(self, peer: Peer) -> None:
        try:
            digest = await self._fetch(peer, self.peers.identity)
        except (OSError, ValueError):
            return
        else:
            self._digests[peer] = digest
        finally:
            self._fetched_at[peer] = asyncio.get_running_loop().time()
            del self._fetching[peer]
            for former in [each for each in self._fetched_at if each not in self.peers]:
                del self._fetched_at[former]
                self._digests.pop(former, None)

    def _key(self, receiver: str) -> str:
        return hmac.new(self._secret, receiver.encode(), hashlib.sha256).hexdigest()


def _digest(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()
