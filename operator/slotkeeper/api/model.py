"""The model, as a user names it in `spec.model`."""

from typing import Annotated, ClassVar

from pydantic import Field

from slotkeeper.api import quantity
from slotkeeper.api.placement import Name
from slotkeeper.api.resources import Quantity
from slotkeeper.api.validation import ApiModel, Rule, matches


def _authority(url: str) -> str:
    _, _, rest = url.partition("://")
    for end in "/?#":
        rest, _, _ = rest.partition(end)
    return rest


Url = Annotated[
    str,
    Field(max_length=2048),
    matches(
        "https?://[^/?#].*",
        "must start with http:// or https:// and a host, such as https://example.com/model.gguf",
    ),
    matches("[!-~]*", "must be printable ASCII without blanks: write a blank as %20"),
    Rule(
        "!self.matches(r'^https?://[^/?#]*@')",
        "must not hold a user name or password: whoever may read the resource would see it",
        lambda url: "@" not in _authority(url),
    ),
]

Sha256 = Annotated[
    str,
    Field(max_length=64),
    matches("[0-9a-fA-F]{64}", "must be 64 hexadecimal digits, as `sha256sum FILE` prints them"),
]


class TokenSecret(ApiModel):
    """A Secret with a token for the hosts that files are downloaded from."""

    name: Name
    """Name of the Secret, in the server's namespace. Example: huggingface"""

    key: Annotated[
        str,
        Field(max_length=253),
        matches(
            "[-._a-zA-Z0-9]+", "must name an entry of the Secret: letters, digits, '-', '_' and '.'"
        ),
    ] = "token"
    """Its entry that holds the token and nothing else. Default: token. Example: HF_TOKEN"""


class Projector(ApiModel):
    """What lets a model see or hear: a GGUF file beside the model's own."""

    url: Url
    """URL of the GGUF file, as model.url. Example: https://example.com/mmproj.gguf"""

    sha256: Sha256 | None = None
    """SHA-256 of the file, as model.sha256. Default: not checked.
    Example: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"""


class Adapter(ApiModel):
    """A LoRA adapter: a GGUF file that changes the model a little."""

    url: Url
    """URL of the GGUF file, as model.url. Example: https://example.com/legal-lora.gguf"""

    sha256: Sha256 | None = None
    """SHA-256 of the file, as model.sha256. Default: not checked.
    Example: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"""

    scale: Annotated[float, Field(ge=-100, le=100)] = 1.0
    """How strongly it changes the model, -100 to 100. With 0 it is loaded, and used by requests
    that ask for it. Default: 1. Example: 0.5"""


class Cache(ApiModel):
    """Where downloaded files are kept."""

    rules: ClassVar = (
        Rule(
            "!has(self.claimName) || !has(self.sizeLimit)",
            "sizeLimit is for files that go with their pod: a claim has a size of its own",
            lambda cache: cache.claim_name is None or cache.size_limit is None,
        ),
    )

    claim_name: Name | None = None
    """PersistentVolumeClaim in the server's namespace, where files stay when pods go, and which all
    replicas and other servers may share: each file is downloaded once. Replicas on several nodes
    need one of access mode ReadWriteMany. Nothing in it is ever removed. Default: each pod has its
    own files, and they go with it. Example: models"""

    size_limit: (
        Annotated[
            Quantity,
            Rule(
                "quantity(string(self)).compareTo(quantity('1Mi')) >= 0 && "
                "quantity(string(self)).compareTo(quantity('16Ti')) <= 0",
                "must be from 1Mi to 16Ti",
                lambda size: 1024**2 <= quantity.parse(size) <= 16 * 1024**4,
            ),
        ]
        | None
    ) = None
    """Bytes that the files of one pod may take of its node's disk, 1Mi to 16Ti; Kubernetes evicts a
    pod that takes more. Default: no limit. Example: 40Gi"""


class Model(ApiModel):
    """Where the model comes from, and what is loaded with it. Each replica has all files downloaded
    and checked before it starts."""

    url: Url
    """URL of the GGUF file: http:// or https://. Example: https://example.com/model.gguf"""

    sha256: Sha256 | None = None
    """SHA-256 of the file, 64 hexadecimal digits as `sha256sum` prints them. A file that does not
    match is not served. Worth setting: without it, whoever can change what the URL answers
    chooses what the server runs. Default: not checked.
    Example: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"""

    token_secret_ref: TokenSecret | None = None
    """Token for files that not everybody may have, such as one of Hugging Face. It is sent as
    `Authorization: Bearer …` to the hosts of the URLs of the model, mmproj and adapters, and not to
    those that they redirect to. Default: none. Example: {name: huggingface}"""

    alias: (
        Annotated[
            str,
            Field(max_length=128),
            matches(
                "[a-zA-Z0-9][-._:/@+a-zA-Z0-9]*",
                "must start with a letter or digit, and hold only those and '-', '.', '_', ':', "
                "'/', '@' and '+'",
            ),
        ]
        | None
    ) = None
    """Name of the model in answers and in /v1/models, up to 128 characters. A change replaces
    replicas and balancers. Default: the server's name. Example: qwen2.5-7b-instruct"""

    mmproj: Projector | None = None
    """Projector that lets a model see images or hear, made for this very model. Default: none.
    Example: {url: "https://example.com/mmproj.gguf"}"""

    adapters: Annotated[list[Adapter], Field(max_length=16)] = Field(default_factory=list)
    """LoRA adapters made for this model, up to 16. A request may weigh them anew by their place in
    this list, from 0. Default: none. Example: [{url: "https://example.com/lora.gguf", scale: 0.5}]
    """

    cache: Cache = Cache()
    """Where downloaded files are kept. Default: on the node's disk, for as long as the pod is
    there. Example: {claimName: models}"""
