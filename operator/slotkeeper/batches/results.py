"""The lines of the files with results, in OpenAI's format. Pure."""

import json
from dataclasses import dataclass

from slotkeeper import bounded_json
from slotkeeper.batches.client import MAX_RESPONSE, Reply

_MAX_DEPTH = 256


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one line of a batch."""

    line: int
    text: bytes
    """One line of JSON, with its line end."""
    failed: bool
    """It belongs in the file with errors."""


def of_reply(batch_id: str, line: int, custom_id: str, reply: Reply) -> Result:
    """Return the result of a request that got a response."""
    try:
        bounded_json.parse(reply.body, max_bytes=MAX_RESPONSE, max_depth=_MAX_DEPTH)
    except ValueError as error:
        message = f"the response, of status {reply.status}, is not valid JSON: {error}"
        return of_error(batch_id, line, custom_id, "invalid_response", message)
    # Line ends are only between values: in strings JSON requires them to be escaped.
    body = reply.body.strip().replace(b"\r", b" ").replace(b"\n", b" ")
    head = {"id": _id(batch_id, line), "custom_id": custom_id}
    response = {
        "status_code": reply.status,
        "request_id": reply.request_id or _id(batch_id, line),
    }
    text = b'%s, "response": %s, "body": %s}, "error": null}\n' % (
        json.dumps(head)[:-1].encode(),
        json.dumps(response)[:-1].encode(),
        body,
    )
    return Result(line, text, failed=not 200 <= reply.status < 300)


def of_error(batch_id: str, line: int, custom_id: str, code: str, message: str) -> Result:
    """Return the result of a request that got no response."""
    tree = {
        "id": _id(batch_id, line),
        "custom_id": custom_id,
        "response": None,
        "error": {"code": code, "message": message},
    }
    return Result(line, json.dumps(tree).encode() + b"\n", failed=True)


def _id(batch_id: str, line: int) -> str:
    return f"{batch_id.replace('batch_', 'batch_req_')}_{line + 1}"
