"""Errors of downloads: a reason for programs and a message for people."""

from slotkeeper.api.problem_reasons import Reason

TRANSIENT = frozenset(
    {Reason.MODEL_DOWNLOAD_INCOMPLETE, Reason.MODEL_UNREACHABLE, Reason.MODEL_SERVER_ERROR}
)
"""Reasons for which a retry may succeed."""


MAX_SHOWN = 200
"""Characters of a name in a message."""


def shown(name: str) -> str:
    """Return a name for messages and logs, which a host or the author of an archive has chosen."""
    return ascii(name[:MAX_SHOWN])[1:-1]


class DownloadError(Exception):
    """A file could not be put in place.

    `message` is part of the server's status: it contains the URL without userinfo and query, and
    the HTTP status, if any.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        retry_after: float = 0,
        stalled: bool = False,
        no_tls: bool = False,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        """Seconds that the model host asked to wait; 0 if it did not."""
        self.stalled = stalled
        """Whether so few bytes arrived that they are no progress."""
        self.no_tls = no_tls
        """Whether a host responded to https:// without TLS, which no retry changes."""

    @property
    def transient(self) -> bool:
        """Whether a retry may succeed."""
        return self.reason in TRANSIENT and not self.no_tls

    def with_message(self, message: str) -> "DownloadError":
        """Return the same error with another message."""
        return DownloadError(
            self.reason,
            message,
            retry_after=self.retry_after,
            stalled=self.stalled,
            no_tls=self.no_tls,
        )
