"""A model in a bucket is downloaded with an access key, which appears nowhere."""

import hashlib

import pytest

from model_sources import ModelSources, ObjectStore, create_secret, published
from servers import Server
from source_examples import STORE, in_bucket
from stack import ROOT


@pytest.fixture
def store(model_sources: ModelSources) -> ObjectStore:
    """The object store."""
    return model_sources.object_store


def test_an_object_is_downloaded_with_the_access_key(server: Server, store: ObjectStore) -> None:
    digest = hashlib.sha256((ROOT / "build/models/quick.gguf").read_bytes()).hexdigest()
    create_secret(server, STORE, store.entries)

    server.ready(in_bucket(store, sha256=digest))

    [result] = server.chat()
    assert result["completed"], result
    model = server.get()["status"]["model"]
    assert (model["source"], model["sha256"]) == ("s3://models/quick.gguf", digest)
    assert store.secret_key not in published(server)


def test_a_split_model_is_downloaded_by_its_first_object(
    server: Server, store: ObjectStore
) -> None:
    create_secret(server, STORE, store.entries)

    server.ready(in_bucket(store, "split-00001-of-00003.gguf"))

    [result] = server.chat()
    assert result["completed"], result


def test_a_wrong_access_key_is_reported_until_it_is_corrected(
    server: Server, store: ObjectStore
) -> None:
    create_secret(server, STORE, store.entries | {"AWS_SECRET_ACCESS_KEY": "CANARY"})
    server.apply(in_bucket(store))

    message = server.wait_for_reason("Ready", "ModelForbidden")

    assert "spec.model.s3.secretRef" in message
    assert "CANARY" not in published(server)


def test_a_missing_object_is_reported(server: Server, store: ObjectStore) -> None:
    create_secret(server, STORE, store.entries)
    server.apply(in_bucket(store, "other.gguf"))

    assert "other.gguf" in server.wait_for_reason("Ready", "ModelNotFound")
