"""Refusals: one clear status with an OpenAI-style JSON body."""

import math
from collections.abc import Iterable

from slotkeeper.wire.message import Header, Response, json_response


class HttpError(Exception):
    """A request is not served.

    `status` is HTTP's, `code` a stable word for programs, `message` a sentence for people,
    `retry_after` seconds after which it may be worth another try, `headers` what else HTTP wants
    to be said with this status.
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

    def response(self) -> Response:
        """This refusal as OpenAI's clients expect an error."""
        error = {"message": self.message, "type": _type(self.status), "code": self.code}
        answer = json_response(self.status, {"error": error})
        answer.headers.extend(self.headers)
        if self.retry_after is not None:
            answer.headers.append((b"Retry-After", b"%d" % max(1, math.ceil(self.retry_after))))
        return answer


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    if status == 503:
        return "unavailable_error"
    return "invalid_request_error" if status < 500 else "server_error"
