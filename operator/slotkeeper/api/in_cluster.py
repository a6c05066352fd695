"""URLs of Services of the cluster. No pydantic: the image of the download container has none."""

HTTP_URL = (
    r"http://[a-z0-9]([-a-z0-9.]*[a-z0-9])?[.]svc([.]cluster[.]local)?(:[0-9]{1,5})?([/?#].*)?"
)
"""http:// URLs of hosts that only the cluster's DNS resolves: `svc` is no public domain, and a name
without it, such as `models.default`, may be one."""
