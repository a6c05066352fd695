"""Push files to a registry as an artifact, with the client of ORAS.

python push.py REFERENCE USER PASSWORD PATH:MEDIA_TYPE...
"""

import sys
from collections.abc import Sequence

from oras.client import OrasClient

AUTHORITY = "/tls/ca.crt"


def main(reference: str, user: str, password: str, files: Sequence[str]) -> None:
    """Push the artifact. Raises what the client raises."""
    client = OrasClient(tls_verify=AUTHORITY, auth_backend="basic")
    client.auth.set_basic_auth(user, password)
    client.push(reference, files=list(files), disable_path_validation=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
