"""Files of http:// and https:// URLs: the files of a split model are beside each other."""

from collections.abc import Sequence

from slotkeeper.api.split_model import part_count, part_name
from slotkeeper.download.address import require_allowed
from slotkeeper.download.files import File, RemoteFile
from slotkeeper.llamacpp.gguf_split import Part


def resolve(file: File) -> Sequence[RemoteFile]:
    """Return the files to fetch, without a request. Raises DownloadError."""
    require_allowed(file.url)
    count = part_count(file.url)
    if count == 1:
        return [RemoteFile(file.url, file.path, file.sha256)]
    return [
        RemoteFile(
            url=part_name(file.url, number),
            path=file.path.with_name(part_name(file.path.name, number)),
            sha256=file.parts_sha256[number - 1] if file.parts_sha256 else None,
            part=Part(number, count),
        )
        for number in range(1, count + 1)
    ]
