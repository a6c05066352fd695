"""HTTP errors: a status with a JSON body in OpenAI's format."""

import math
from collections.abc import Iterable

from slotkeeper.wire.message import Header, Response, json_response


class HttpError(Exception):
    """Rejects a request with an error response.

    `status` is the HTTP status, `code` a stable identifier for programs, `message` a sentence for
    people, `retry_after` the Retry-After header in seconds (None: no such header), `headers` other
    headers that HTTP requires with this status.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after: float | None = None,
        headers: Iterable[Header] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.headers = tuple(headers)

    def response(self, tree: object = None) -> Response:
        """Return the error response. `tree`: its JSON; None: in OpenAI's format."""
        if tree is None:
            error = {"message": self.message, "type": _type(self.status), "code": self.code}
            tree = {"error": error}
        response = json_response(self.status, tree)
        response.headers.extend(self.headers)
        if self.retry_after is not None:
            response.headers.append((b"Retry-After", b"%d" % max(1, math.ceil(self.retry_after))))
        return response


_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "unavailable_error",
}
"""Those of llama-server, and OpenAI's for 429."""


def _type(status: int) -> str:
    return _TYPES.get(status) or ("invalid_request_error" if status < 500 else "server_error")
