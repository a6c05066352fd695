"""Names in the folder of prompt files.

    FOLDER/.lock                    locked for each change
    FOLDER/IDENTITY/.used           its modification time is the last use of the identity
    FOLDER/IDENTITY/NAME            a prompt file
    FOLDER/IDENTITY/NAME.json       its record; its modification time is the last use of the file
    FOLDER/IDENTITY/NAME.json.new   a record that is being written
    FOLDER/IDENTITY/NAME.part       what llama-server writes

All other files are left alone, and not counted.
"""

import re

LOCK = ".lock"
USED = ".used"
RECORD = ".json"
NEW_RECORD = ".json.new"
PART = ".part"

IDENTITY = re.compile("[0-9a-f]{16}")
NAME = re.compile("[0-9a-f]{32}")
PART_NAME = re.compile(NAME.pattern + re.escape(PART))
_OWN = re.compile(rf"({NAME.pattern})((?:[.][a-z]+)*)")


def split(file: str) -> tuple[str, str] | None:
    """Return the name and the suffix of a file of an identity; None for any other file."""
    found = _OWN.fullmatch(file)
    if found is None or found[2] not in {"", RECORD, NEW_RECORD, PART}:
        return None
    return found[1], found[2]
