"""What the chart sets for downloads, in the init container of replicas."""

from typing import Any

import pytest

from llamaservers import IMAGES, server
from slotkeeper.desired import replicas
from slotkeeper.desired.download_settings import NO_SETTINGS, DownloadSettings
from slotkeeper.download.options import Options, parse
from slotkeeper.flags import CA_CERTIFICATES

URL = "https://models.example.com/model.gguf"
HTTP, HTTPS, OWN = "http://a.example:3128", "http://b.example:3128", "http://own.example:3128"
PEM = "-----BEGIN CERTIFICATE-----\nTQ==\n-----END CERTIFICATE-----\n"
ALL = DownloadSettings(HTTP, HTTPS, (".corp.example",), ("10.0.0.0/8", "fd12::/32"), PEM)


def container(settings: DownloadSettings = ALL, **model: Any) -> Any:
    tree = replicas.deployment(server(model={"url": URL} | model), 1, IMAGES, settings)
    return tree["spec"]["template"]["spec"]["initContainers"][0]


def options(settings: DownloadSettings = ALL, **model: Any) -> Options:
    return parse(container(settings, **model)["command"][2:])


def variables(settings: DownloadSettings = ALL, **model: Any) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(settings, **model).get("env", [])}


def test_every_download_is_guarded_for_the_server_s_namespace() -> None:
    assert options(NO_SETTINGS).guarded_namespace == "default"
    assert options(NO_SETTINGS).allowed_addresses == ()
    assert options().guarded_namespace == "default"
    assert options().allowed_addresses == ("10.0.0.0/8", "fd12::/32")


def test_proxies_and_certificates_of_the_chart_are_used() -> None:
    assert variables() == {
        "HTTP_PROXY": HTTP,
        "HTTPS_PROXY": HTTPS,
        "NO_PROXY": "localhost,.svc,.svc.cluster.local,.corp.example",
        CA_CERTIFICATES: PEM,
    }
    assert variables(NO_SETTINGS) == {}


def test_a_proxy_of_the_server_has_precedence_and_is_not_trusted() -> None:
    own = {"httpsProxy": OWN, "noProxy": ["own.example"]}

    assert variables(download=own)["HTTPS_PROXY"] == OWN
    assert variables(download=own)["HTTP_PROXY"] == HTTP
    assert variables(download=own)["NO_PROXY"].endswith(",.corp.example,own.example")
    assert options(download=own).trusted_proxies == {HTTP}
    assert options().trusted_proxies == {HTTP, HTTPS}
    assert options(NO_SETTINGS, download=own).trusted_proxies == set()


@pytest.mark.parametrize("settings", [ALL, NO_SETTINGS])
def test_replicas_that_download_nothing_are_not_replaced_by_a_change(
    settings: DownloadSettings,
) -> None:
    url = "pvc://models/model.gguf"

    assert container(settings, url=url) == container(NO_SETTINGS, url=url)
    assert "--address-guard" not in container(settings, url=url)["command"]
