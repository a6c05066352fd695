"""A model with status 404 or a wrong checksum is reported; a corrected spec makes it Ready."""

import hashlib

from servers import QUICK, Server, spec
from stack import ROOT


def test_a_missing_model_is_reported_with_url_and_status(server: Server) -> None:
    missing = QUICK.replace("quick", "missing")
    server.apply(spec(missing))

    message = server.wait_for_reason("Ready", "ModelNotFound")

    assert missing in message
    assert "404" in message
    assert server.condition("Ready")["status"] == "False"
    server.ready(spec())


def test_a_model_with_a_wrong_checksum_is_never_served(server: Server) -> None:
    server.apply(spec(model=QUICK) | {"model": {"url": QUICK, "sha256": "0" * 64}})

    message = server.wait_for_reason("Ready", "ModelChecksumMismatch")

    digest = hashlib.sha256((ROOT / "build/models/quick.gguf").read_bytes()).hexdigest()
    assert QUICK in message
    assert digest in message
    server.ready(spec() | {"model": {"url": QUICK, "sha256": digest}})
