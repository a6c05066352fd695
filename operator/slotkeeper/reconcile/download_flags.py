"""Flags of the operator for the downloads of all servers."""

import argparse
import re
import ssl

from slotkeeper.desired.download_settings import DownloadSettings
from slotkeeper.flags import DownloadDefaultsFlags, cidr

MAX_CERTIFICATES = 65_536
"""Characters. The certificates are in the template of each server's pods, and in an environment
variable, which the kernel limits to twice as much."""

_CERTIFICATE = re.compile(
    "-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\\s]+-----END CERTIFICATE-----", re.ASCII
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags to the operator's parser."""
    add = parser.add_argument
    add(
        DownloadDefaultsFlags.ADDRESS_RANGE,
        type=cidr,
        action="append",
        default=[],
        metavar="CIDR",
        help="private addresses that models may be downloaded from, besides public ones and "
        "Services of the server's namespace; repeatable (default: none)",
    )
    add(
        DownloadDefaultsFlags.HTTP_PROXY,
        metavar="URL",
        help="proxy for http:// URLs of servers that set none (default: none)",
    )
    add(
        DownloadDefaultsFlags.HTTPS_PROXY,
        metavar="URL",
        help="proxy for https:// URLs of servers that set none (default: none)",
    )
    add(
        DownloadDefaultsFlags.NO_PROXY,
        action="append",
        default=[],
        metavar="HOST",
        help="host or domain that is connected to without a proxy; repeatable (default: none)",
    )
    add(
        DownloadDefaultsFlags.CA_CERTIFICATES,
        type=certificates,
        default="",
        metavar="PEM",
        help="certificates of private authorities that all downloads trust, in PEM format "
        "(default: none)",
    )
    add(
        "--node-cache-path",
        metavar="PATH",
        help="folder on each node for the models of servers with model.cache.node (default: not "
        "allowed)",
    )
    add(
        "--node-prompts-path",
        metavar="PATH",
        help="folder on each node for the prompts of servers with promptCache.node (default: not "
        "allowed)",
    )


def download_settings(
    arguments: argparse.Namespace, operator_namespace: str | None = None
) -> DownloadSettings:
    """Return the settings of parsed flags."""
    return DownloadSettings(
        http_proxy=arguments.download_http_proxy,
        https_proxy=arguments.download_https_proxy,
        no_proxy=tuple(arguments.download_no_proxy),
        allowed_addresses=tuple(arguments.download_address_range),
        ca_certificates=arguments.download_ca_certificates,
        operator_namespace=operator_namespace,
        node_cache_path=arguments.node_cache_path,
        node_prompts_path=arguments.node_prompts_path,
    )


def certificates(text: str) -> str:
    """Return the certificates of a text in PEM format, without what is between them.

    Raises ArgumentTypeError.
    """
    if not text.strip():
        return ""
    found = "\n".join(_CERTIFICATE.findall(text))
    if len(found) > MAX_CERTIFICATES:
        raise argparse.ArgumentTypeError(f"more than {MAX_CERTIFICATES} characters")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found)
    except (OSError, ValueError):
        raise argparse.ArgumentTypeError("not certificates in PEM format") from None
    return f"{found}\n"
