"""Access to the container registries of oci:// URLs: `spec.model.oci`."""

from slotkeeper.api.validation import ApiModel


class Oci(ApiModel):
    """Access to the container registries of oci:// URLs."""

    plain_http: bool = False
    """Whether registries of the cluster are accessed by http:// instead of https://: those whose
    names end with .svc or .svc.cluster.local. Others can read and change what is transferred, but a
    change is noticed if the URL has a digest. Default: false. Example: true"""
