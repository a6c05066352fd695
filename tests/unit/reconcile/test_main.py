"""The operator's flags."""

import pytest

from slotkeeper.reconcile.main import _lease_namespace, _parser

IMAGES = ["--llama-server-image", "a", "--balancer-image", "b", "--download-image", "c"]


def test_only_the_images_are_required() -> None:
    flags = _parser().parse_args(IMAGES)

    assert flags.health == ("::", 8081)
    assert flags.namespace == []


@pytest.mark.parametrize(
    ("options", "namespace"),
    [
        (["--namespace", "a", "--namespace", "b"], "a"),
        (["--namespace", "a", "--namespace", "b", "--lease-namespace", "b"], "b"),
    ],
)
def test_the_lease_is_in_the_first_namespace_by_default(options: list[str], namespace: str) -> None:
    flags = _parser().parse_args([*IMAGES, *options])

    assert flags.namespace == ["a", "b"]
    assert _lease_namespace(flags) == namespace


@pytest.mark.parametrize("address", ["8081", "localhost:", "localhost:http", "localhost:99999"])
def test_an_address_without_a_port_is_rejected(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args([*IMAGES, "--health", address])

    assert "HOST:PORT" in capsys.readouterr().err


def test_images_by_compute_capability_are_parsed_in_any_spelling() -> None:
    options = ["--llama-server-image-for=sm_75=a:7", "--llama-server-image-for=8.6=b@sha256:1=2"]

    flags = _parser().parse_args([*IMAGES, *options])

    assert flags.llama_server_image_for == [("7.5", "a:7"), ("8.6", "b@sha256:1=2")]


def test_images_by_vendor_are_parsed() -> None:
    option = "--llama-server-image-for-vendor=amd=a:1@sha256:2"

    flags = _parser().parse_args([*IMAGES, option])

    assert flags.llama_server_image_for_vendor == [("amd", "a:1@sha256:2")]


@pytest.mark.parametrize(
    ("flag", "value", "error"),
    [
        ("", "7.5", "ARCH=IMAGE"),
        ("", "ampere=a", "such as 7.5, 75, sm_75"),
        ("", "auto=a", "such as 7.5, 75, sm_75"),
        ("-vendor", "amd", "VENDOR=IMAGE"),
        ("-vendor", "=a", "VENDOR=IMAGE"),
    ],
)
def test_an_image_for_unknown_gpus_is_rejected(
    flag: str, value: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args([*IMAGES, f"--llama-server-image-for{flag}", value])

    assert error in capsys.readouterr().err


def test_an_ipv6_address_is_written_in_brackets() -> None:
    assert _parser().parse_args([*IMAGES, "--metrics", "[::]:9"]).metrics == ("::", 9)


@pytest.mark.parametrize("seconds", ["0", "-1", "601", "nan", "long"])
def test_an_idle_timeout_out_of_range_is_rejected(
    seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args([*IMAGES, f"--api-idle-timeout={seconds}"])

    assert "is not 1 to 600 seconds" in capsys.readouterr().err
