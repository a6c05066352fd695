"""Files that clients upload to a gateway, and it to the process that keeps them."""

from slotkeeper.wire.message import Request


def is_upload(request: Request) -> bool:
    """Whether a request is handled while its body arrives."""
    return request.method == b"POST" and request.path == b"/v1/files"
