"""References to artifacts and images, by tag, digest or neither."""

import pytest

from slotkeeper.api.model_url import oci_reference

DIGEST = f"sha256:{'ab' * 32}"


@pytest.mark.parametrize(
    ("url", "repository", "reference", "path"),
    [
        ("oci://ghcr.io/team/model", "team/model", "latest", None),
        ("oci://ghcr.io/team/model:v1", "team/model", "v1", None),
        ("oci://ghcr.io/team/model:latest/a.gguf", "team/model", "latest", "a.gguf"),
        (f"oci://ghcr.io/team/model:v1@{DIGEST}/a.gguf", "team/model", DIGEST, "a.gguf"),
        # Without a tag, no segment can be told apart from the repository's name.
        ("oci://ghcr.io/team/model/a.gguf", "team/model/a.gguf", "latest", None),
    ],
)
def test_an_omitted_tag_is_latest(
    url: str, repository: str, reference: str, path: str | None
) -> None:
    found = oci_reference(url)

    assert found is not None
    assert (found.repository, found.reference, found.path) == (repository, reference, path)
