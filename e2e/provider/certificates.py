"""The keys and certificates of a cluster, made once by openssl."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DAYS = "3650"
CONFIG = "[req]\ndistinguished_name = name\n[name]\n"
"""Nothing of the host's openssl.cnf, which would add extensions of its own."""


@dataclass(frozen=True)
class Certificate:
    """One certificate: its file's name, who it stands for, and where it is served."""

    file: str
    common_name: str
    organization: str = ""
    served_at: tuple[str, ...] = ()
    """Alternative names as openssl spells them, as in `IP:192.0.2.10`."""
    authority: str = "ca"


def issue(folder: Path, certificates: Sequence[Certificate]) -> None:
    """Fill the folder with NAME.crt and NAME.key of all certificates, authorities included.

    Does nothing where the folder is complete; it comes to be in one step.
    """
    if folder.exists():
        return
    aside = folder.with_name(f"{folder.name}.part")
    aside.mkdir(parents=True, exist_ok=True)
    aside.chmod(0o700)
    (aside / "openssl.cnf").write_text(CONFIG)
    for authority in sorted({certificate.authority for certificate in certificates}):
        _authority(aside, authority)
    for certificate in certificates:
        _certificate(aside, certificate)
    aside.rename(folder)


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
    names = ",".join(certificate.served_at)
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
