"""Access control: a request's API key, route, priority and flow, read from its head."""

import hashlib

from slotkeeper.api.access_rules import AccessRules
from slotkeeper.balancer import responses
from slotkeeper.balancer.election import peer_auth
from slotkeeper.balancer.election.peer_auth import PeerAuth
from slotkeeper.edge import access
from slotkeeper.edge.access import FORWARDED, SECRETS
from slotkeeper.edge.api_keys import ApiKeys
from slotkeeper.edge.routes import Route, is_public, route
from slotkeeper.scheduling import PREEMPTIBLE_PRIORITY, FlowKey
from slotkeeper.wire.message import Request

KEY_NAME = b"x-slotkeeper-key-name"
"""Header of a relayed request, in lower case: the name of its API key, in place of the key."""


class RequestAccess:
    """Authenticates requests and applies the rules.

    `salt`: for the hashes of unknown secrets, so that they cannot be used to test guesses.
    `keys`: the accepted API keys; None: no key is required.
    """

    def __init__(
        self, rules: AccessRules | None = None, salt: bytes = b"", keys: ApiKeys | None = None
    ) -> None:
        self._own_rules = self._rules = rules or AccessRules()
        self._salt = salt
        self._keys = keys
        self.forwarded_headers = FORWARDED if keys is not None else FORWARDED | SECRETS
        """Headers that are sent to llama-server, or to the leader. API keys only if they are not
        checked here."""
        self.peers: PeerAuth | None = None
        """Verifies relayed requests; None: there are no other balancers."""
        self.outdated = False
        """Requests of clients are rejected: this balancer does not have the API keys that they must
        have now, or does not know yet which rules are in force."""

    def apply(self, rules: AccessRules) -> None:
        """Apply the rules in force where they are stricter than those that this process has."""
        self._rules = self._own_rules.restricted_by(rules)
        self.outdated = rules.requires_other_keys_than(self._own_rules)

    def must_verify(self, request: Request) -> bool:
        """Whether `verify` must read a digest before a relayed request can be authenticated."""
        proof = request.header(peer_auth.HEADER)
        return bool(proof and self.peers and self.peers.verified(proof) is None)

    async def verify(self, request: Request) -> None:
        """Verify a relayed request's proof, with I/O if that is needed."""
        if self.peers:
            await self.peers.verify(request.header(peer_auth.HEADER) or b"")

    def authenticate(self, request: Request) -> str | None:
        """Return the name of the request's API key, None if it needs none.

        A request that another balancer relays has the name in place of the key. Raises HttpError
        with status 401, or 503 for a relay that is not verified.
        """
        proof = request.header(peer_auth.HEADER)
        if proof is not None:
            return self._authenticate_relayed(request, proof)
        if is_public(request.method, request.path):
            return None
        if self.outdated:
            # The client's next connection is to another balancer.
            request.keep_alive = False
            raise responses.access_rules_outdated()
        if self._keys is None:
            return None
        return access.key_owner(self._keys, request)

    def _authenticate_relayed(self, request: Request, proof: bytes) -> str | None:
        if self.peers is None or self.peers.verified(proof) is None:
            raise responses.relay_not_verified()
        name = request.header(KEY_NAME)
        if name is not None:
            return name.decode("ascii", "replace")
        if self._keys is not None and not is_public(request.method, request.path):
            # By a balancer of an older spec, which cannot have verified a key.
            raise access.unauthorized("API key required, and the relaying balancer has none")
        return None

    def route(self, request: Request) -> Route:
        """Return how the request is served. Raises HttpError with status 404 or 405."""
        return route(request.method, request.path, self._rules.allowed_paths)

    def flow_key(self, request: Request, key_name: str | None = None) -> FlowKey:
        """Return the request's priority, and the key under which it takes turns.

        `key_name`: of its API key. Raises HttpError with status 400 if X-Priority is no integer, or
        X-Preemptible no boolean.
        """
        priority = self._priority(request, key_name)
        if access.preemptible(request):
            priority = PREEMPTIBLE_PRIORITY
        return FlowKey(priority, key_name or self._secret_hash(request))

    def _priority(self, request: Request, key_name: str | None) -> int:
        return access.priority(request, self._rules.max_priority_of(key_name))

    def _secret_hash(self, request: Request) -> str:
        # llama-server reads its API key from either.
        secret = request.header(b"authorization") or request.header(b"x-api-key")
        if not secret:
            return ""
        return hashlib.blake2b(secret, digest_size=6, key=self._salt).hexdigest()
