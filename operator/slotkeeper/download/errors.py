"""Why a model is not in place: a reason for machines and a sentence for people."""

from enum import StrEnum


class Reason(StrEnum):
    """What went wrong, in the words of a Kubernetes condition's `reason`."""

    NOT_FOUND = "ModelNotFound"
    FORBIDDEN = "ModelForbidden"
    REFUSED = "ModelRefused"
    """The server answered, with a status that no second try will change."""
    URL_REFUSED = "ModelURLRefused"
    TOKEN = "ModelTokenInvalid"  # noqa: S105 (a reason)
    TOO_MANY_REDIRECTS = "ModelTooManyRedirects"
    LENGTH_UNKNOWN = "ModelLengthUnknown"
    CHECKSUM_MISMATCH = "ModelChecksumMismatch"
    NOT_GGUF = "ModelNotGGUF"
    TRUNCATED = "ModelTruncated"
    UNREACHABLE = "ModelUnreachable"
    SERVER_ERROR = "ModelServerError"
    NO_SPACE = "NoSpace"
    STORAGE = "StorageError"

    @property
    def transient(self) -> bool:
        """Whether the same request may well succeed a little later."""
        return self in {Reason.TRUNCATED, Reason.UNREACHABLE, Reason.SERVER_ERROR}


class DownloadError(Exception):
    """The model is not in place.

    `message` is shown to users in the server's status: it names the URL without userinfo and
    query, and the HTTP status where there was one.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
