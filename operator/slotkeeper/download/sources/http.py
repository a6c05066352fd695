"""Files of http:// and https:// URLs: the files of a split model are beside each other."""

from collections.abc import Sequence

from slotkeeper.download.address import require_allowed
from slotkeeper.download.files import File, RemoteFile, adjacent_files


def resolve(file: File) -> Sequence[RemoteFile]:
    """Return the files to fetch, without a request. Raises DownloadError."""
    require_allowed(file.url)
    return adjacent_files(file)
