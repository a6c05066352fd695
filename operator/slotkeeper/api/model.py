"""The model, as a user names it in `spec.model`."""

from typing import Annotated

from pydantic import Field

from slotkeeper.api.rules import Rule, Struct, matches


class Model(Struct):
    """Where the model comes from. Each replica downloads and checks it before it starts."""

    url: Annotated[
        str,
        Field(max_length=2048),
        matches(
            "https?://[^/?#].*",
            "must start with http:// or https:// and a host, such as "
            "https://example.com/model.gguf",
        ),
        matches("[!-~]*", "must be printable ASCII without blanks: write a blank as %20"),
        Rule(
            "!self.matches(r'^https?://[^/?#]*@')",
            "must not hold a user name or password: whoever may read the resource would see it",
            lambda url: "@" not in _authority(url),
        ),
    ]
    """URL of the GGUF file: http:// or https://. Example: https://example.com/model.gguf"""

    sha256: (
        Annotated[
            str,
            Field(max_length=64),
            matches(
                "[0-9a-fA-F]{64}", "must be 64 hexadecimal digits, as `sha256sum FILE` prints them"
            ),
        ]
        | None
    ) = None
    """SHA-256 of the file, 64 hexadecimal digits as `sha256sum` prints them. A file that does not
    match is not served. Worth setting: without it, whoever can change what the URL answers
    chooses what the server runs. Default: not checked."""


def _authority(url: str) -> str:
    _, _, rest = url.partition("://")
    for end in "/?#":
        rest, _, _ = rest.partition(end)
    return rest
