"""Files of http:// and https:// URLs: the files of a split model are beside each other."""

from collections.abc import Sequence

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.address import redact, require_allowed
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File, RemoteFile, adjacent_files


def resolve(file: File) -> Sequence[RemoteFile]:
    """Return the files to fetch, without a request. Raises DownloadError."""
    expected = _FORMS.get(file.url.partition(":")[0])
    if expected:
        raise DownloadError(Reason.MODEL_URL_NOT_ALLOWED, f"{redact(file.url)} is not {expected}")
    require_allowed(file.url)
    return adjacent_files(file)


_FORMS = {
    "hf": "hf://ORG/REPOSITORY/FILE.gguf or hf://ORG/REPOSITORY:QUANTIZATION",
    "s3": "s3://BUCKET/KEY",
    "oci": "oci://REGISTRY/REPOSITORY:TAG",
}
"""Of URLs that other modules resolve if they have it. The API server rejects others; a command line
may have any."""
