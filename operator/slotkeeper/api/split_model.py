"""Names of the files of a split model. No pydantic: the image of the download container has none.

llama-server derives the names of the other files from that of the first. So the files are stored
under names with the same ending as in the URL.
"""

import re

MAX_PARTS = 999

ANY_PART = r"-[0-9]{5}-of-[0-9]{5}[.]gguf([?#@]|$)"
"""In the URL, or at the end of the path, of any file of a split model."""

FIRST_PART = r"-00001-of-00(00[1-9]|0[1-9][0-9]|[1-9][0-9]{2})[.]gguf([?#@]|$)"
"""The same for the first file. A pattern in the syntax of both RE2 and `re`."""


def part_count(name: str) -> int:
    """Return the number of files of the model whose first file has this URL or path."""
    first = re.search(FIRST_PART, name)
    return int(first[1]) if first else 1


def part_suffix(number: int, count: int) -> str:
    """Return the end of the name of a file of a model, before `.gguf`; `number` starts at 1."""
    return f"-{number:05}-of-{count:05}" if count > 1 else ""


def part_name(first: str, number: int) -> str:
    """Return the URL or path of a file of a model from that of its first file."""
    match = re.search(FIRST_PART, first)
    if match is None:
        return first
    start = match.start()
    return f"{first[:start]}-{number:05}{first[start + len('-00001') :]}"
