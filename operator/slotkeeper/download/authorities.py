"""Certificate authorities that model hosts are verified with."""

import ssl
from pathlib import Path

import httpx

from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.errors import DownloadError
from slotkeeper.error_text import describe


def tls_context(ca_file: Path | None, certificates: str) -> ssl.SSLContext:
    """Return a context that trusts the public authorities, those in `ca_file`, and `certificates`.

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
    except OSError as error:
        raise _invalid("the ConfigMap (model.download.caConfigMapRef)", error) from None
    # Certificates of private authorities often lack extensions that RFC 5280 requires.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _invalid(source: str, error: Exception) -> DownloadError:
    return DownloadError(
        Reason.MODEL_CA_INVALID,
        f"cannot read certificates in PEM format from {source}: {describe(error)}",
    )
