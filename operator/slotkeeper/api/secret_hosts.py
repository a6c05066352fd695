"""The entry `hosts` of a Secret: the hosts that may receive its secret. No pydantic: the images of
the download container and of gateways have none.

Who may write a resource that names a Secret, but may not read Secrets, could otherwise have any of
them sent to a host of their own.
"""

import re


def hosts_in(text: str) -> frozenset[str]:
    """Return the lower-case names of hosts, which spaces, commas or new lines separate."""
    return frozenset(filter(None, re.split(r"[\s,]+", text.lower())))


def not_listed(hosts: frozenset[str]) -> str:
    """Return why these do not contain a host, as the end of a message, which quotes none of them:
    they are in a Secret."""
    if any("/" in host or re.fullmatch("[^:]+:[0-9]+", host) for host in hosts):
        return "does not contain it, but a URL or a port: it must be names only"
    return "does not contain it"
