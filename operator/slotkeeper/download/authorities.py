"""Certificate authorities that model hosts are verified with."""

import ssl
from pathlib import Path

import httpx

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.errors import DownloadError
from slotkeeper.error_text import describe


def tls_context(
    ca_file: Path | None, certificates: str, config_map: str | None = None
) -> ssl.SSLContext:
    """Return a context that trusts the public authorities, those in `ca_file`, and `certificates`.

    `config_map` is the ConfigMap that `ca_file` is an entry of, for messages: NAME/ENTRY.

    Raises DownloadError (ModelCAInvalid).
    """
    context = httpx.create_ssl_context()
    if not (ca_file or certificates):
        return context
    try:
        if certificates:
            context.load_verify_locations(cadata=certificates)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise _invalid("the chart's value modelDownloads.caCertificates", error) from None
    try:
        if ca_file:
            context.load_verify_locations(cafile=ca_file)
    except FileNotFoundError:
        raise DownloadError(Reason.MODEL_CA_INVALID, _missing(ca_file, config_map)) from None
    except OSError as error:
        what = f"the ConfigMap {config_map}" if config_map else f"the file {ca_file}"
        raise _invalid(f"{what} (model.download.caConfigMapRef)", error) from None
    # Certificates of private authorities often lack extensions that RFC 5280 requires.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _missing(ca_file: Path | None, config_map: str | None) -> str:
    if config_map is None:
        return f"the file {ca_file} (model.download.caConfigMapRef) does not exist"
    name, _, entry = config_map.partition("/")
    return (
        f"the ConfigMap {name} (model.download.caConfigMapRef) or its entry {entry} does not exist"
    )


def _invalid(source: str, error: Exception) -> DownloadError:
    return DownloadError(
        Reason.MODEL_CA_INVALID,
        f"cannot read certificates in PEM format from {source}: {describe(error)}",
    )
