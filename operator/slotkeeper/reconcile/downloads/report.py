"""The progress of one pod's download, as it reports it. Pure.

The pod is not trusted: numbers that cannot be right are an error, and no text of it is used.
"""

from typing import Annotated

from pydantic import Field, ValidationError

from slotkeeper import bounded_json
from slotkeeper.api.download_progress import MAX_BYTES, Phase
from slotkeeper.api.validation import ApiModel, Rule

MAX_SIZE = 2**50
"""Bytes: a thousand times what a node's disk has."""

Size = Annotated[int, Field(ge=0, le=MAX_SIZE)]


class ProgressReport(ApiModel):
    """The progress of all files of one container."""

    phase: Phase
    total_bytes: Annotated[Size | None, Field(alias="bytes")] = None
    """None until the sizes of all files are known."""
    downloaded_bytes: Size = 0
    bytes_per_second: Size | None = None
    seconds_left: Annotated[int, Field(ge=0, le=366 * 24 * 3600)] | None = None

    rules = (
        Rule(
            cel="",
            message="more bytes are downloaded than there are",
            holds=lambda report: (
                report.total_bytes is None or report.downloaded_bytes <= report.total_bytes
            ),
        ),
    )

    @classmethod
    def parse(cls, body: bytes) -> "ProgressReport":
        """Parse a response's body. Raises ValueError."""
        try:
            return cls.model_validate(bounded_json.parse(body, max_bytes=MAX_BYTES))
        except ValidationError as error:
            raise ValueError(f"no progress of a download: {error.error_count()} errors") from None

    @property
    def has_bytes(self) -> bool:
        """Whether the status shows bytes: from the first response on."""
        return self.phase == "Downloading" or self.downloaded_bytes > 0

    @property
    def bytes_arrive(self) -> bool:
        """Whether bytes have arrived lately."""
        return self.phase == "Downloading" and bool(self.bytes_per_second)

    @property
    def rank(self) -> tuple[int, float, int]:
        """Sorts the pod first that will have its model first."""
        left = float("inf") if self.seconds_left is None else self.seconds_left
        missing = (MAX_SIZE if self.total_bytes is None else self.total_bytes) - (
            self.downloaded_bytes
        )
        return _ORDER[self.phase], left, missing


_ORDER: dict[Phase, int] = {"Verifying": 0, "Downloading": 1, "Checking": 2, "Waiting": 3}
