"""Creates a cluster's keys and certificates with openssl."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DAYS = "3650"
CONFIG = "[req]\ndistinguished_name = name\n[name]\n"
"""Replaces the host's openssl.cnf, which would add its own extensions."""


@dataclass(frozen=True)
class Certificate:
    """One certificate: file name, subject, subject alternative names and issuer."""

    file: str
    common_name: str
    organization: str = ""
    alternative_names: tuple[str, ...] = ()
    """In openssl's syntax, as in `IP:192.0.2.10`."""
    authority: str = "ca"


def issue(folder: Path, certificates: Sequence[Certificate]) -> None:
    """Create `folder` with NAME.crt and NAME.key of all certificates and their authorities.

    Does nothing if the folder exists: it is filled under another name and renamed when complete.
    """
    if folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.part")
    partial.mkdir(parents=True, exist_ok=True)
    partial.chmod(0o700)
    (partial / "openssl.cnf").write_text(CONFIG)
    for authority in sorted({certificate.authority for certificate in certificates}):
        _authority(partial, authority)
    for certificate in certificates:
        _certificate(partial, certificate)
    partial.rename(folder)


def _authority(folder: Path, name: str) -> None:
    _openssl(
        folder,
        name,
        *("-subj", f"/CN=slotkeeper-{name}"),
        *("-addext", "basicConstraints=critical,CA:TRUE"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"),
    )


def _certificate(folder: Path, certificate: Certificate) -> None:
    organization = f"/O={certificate.organization}" if certificate.organization else ""
    names = ",".join(certificate.alternative_names)
    _openssl(
        folder,
        certificate.file,
        *("-CA", f"{folder / certificate.authority}.crt"),
        *("-CAkey", f"{folder / certificate.authority}.key"),
        *("-subj", f"{organization}/CN={certificate.common_name}"),
        *("-addext", "basicConstraints=critical,CA:FALSE"),
        *("-addext", "keyUsage=critical,digitalSignature"),
        *("-addext", "extendedKeyUsage=clientAuth,serverAuth"),
        *(("-addext", f"subjectAltName={names}") if names else ()),
    )


def _openssl(folder: Path, name: str, *arguments: str) -> None:
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
    files = ("-keyout", f"{folder / name}.key", "-out", f"{folder / name}.crt")
    config = ("-config", str(folder / "openssl.cnf"), "-days", DAYS)
    subprocess.run(
        ["openssl", "req", "-x509", *key, *files, *config, *arguments],
        check=True,
        capture_output=True,
    )
