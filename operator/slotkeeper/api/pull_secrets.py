"""Secrets for pulling images: `spec.imagePullSecrets`."""

from typing import Annotated

from pydantic import Field

from slotkeeper.api.placement import Name
from slotkeeper.api.validation import ApiModel, Rule


class PullSecret(ApiModel):
    """Secret with the credentials of an image registry."""

    name: Name
    """Name of the Secret in the namespace of the resource. Example: registry"""


PullSecrets = Annotated[
    list[PullSecret],
    Field(max_length=16),
    Rule(
        "self.all(one, self.exists_one(other, other.name == one.name))",
        "must not contain a name twice",
        lambda secrets: len({secret.name for secret in secrets}) == len(secrets),
    ),
]
