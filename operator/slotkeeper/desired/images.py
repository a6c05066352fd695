"""The images that children run."""

from dataclasses import dataclass
from typing import Literal

PullPolicy = Literal["Always", "IfNotPresent", "Never"]


@dataclass(frozen=True)
class Images:
    """References of the images that the operator was installed with."""

    llama_server: str
    """For replicas whose server names no image of its own."""
    balancer: str
    model: str
    """Of the init container that downloads and checks the model."""
    pull_policy: PullPolicy = "IfNotPresent"
