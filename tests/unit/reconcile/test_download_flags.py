"""The operator's flags for the downloads of all servers."""

import argparse
from pathlib import Path

import pytest

from llamaservers import ROOT
from slotkeeper.desired.download_settings import NO_SETTINGS
from slotkeeper.download.authorities import tls_context
from slotkeeper.reconcile.download_flags import add_flags, certificates, download_settings

TLS = Path(ROOT, "tests/support/tls.pem").read_text()
"""A certificate, and its key."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_flags(parser)
    return parser


def test_without_flags_nothing_is_set() -> None:
    assert download_settings(parser().parse_args([])) == NO_SETTINGS
    assert certificates(" \n") == ""


def test_the_folders_of_nodes_are_kept() -> None:
    arguments = ["--node-cache-path", "/models", "--node-prompts-path", "/prompts"]

    settings = download_settings(parser().parse_args(arguments))

    assert (settings.node_cache_path, settings.node_prompts_path) == ("/models", "/prompts")


def test_only_certificates_are_kept() -> None:
    found = certificates(f"a company\r\n{TLS}\n{TLS}")

    assert found.count("BEGIN CERTIFICATE") == 2
    assert "PRIVATE KEY" not in found
    assert "company" not in found
    assert len(tls_context(None, found).get_ca_certs()) > len(tls_context(None, "").get_ca_certs())


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("MIIB", "not certificates"),
        ("-----BEGIN CERTIFICATE-----\nTQ==\n-----END CERTIFICATE-----", "not certificates"),
        (TLS * 200, "more than 65536"),
    ],
)
def test_other_text_is_rejected_at_the_start(text: str, error: str) -> None:
    with pytest.raises(argparse.ArgumentError, match=error):
        parser().parse_args(["--download-ca-certificates", text])


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "models.example.com"])
def test_a_range_that_is_none_is_rejected(text: str) -> None:
    with pytest.raises(argparse.ArgumentError, match="not a CIDR"):
        parser().parse_args(["--download-address-range", text])
