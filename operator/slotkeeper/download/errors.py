"""Why a model is not in place: a reason for machines and a sentence for people."""

from slotkeeper.api.problem_reasons import Reason

TRANSIENT = frozenset(
    {Reason.MODEL_DOWNLOAD_INCOMPLETE, Reason.MODEL_UNREACHABLE, Reason.MODEL_SERVER_ERROR}
)
"""The same request may succeed a little later."""


class DownloadError(Exception):
    """The model is not in place.

    `message` is shown to users in the server's status: it names the URL without userinfo and
    query, and the HTTP status where there was one.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    @property
    def transient(self) -> bool:
        """Whether a retry may succeed."""
        return self.reason in TRANSIENT
