"""The operator's flags."""

import pytest

from slotkeeper.reconcile.main import _parser

IMAGES = ["--llama-server-image", "a", "--balancer-image", "b", "--download-image", "c"]


def test_the_images_are_all_that_must_be_said() -> None:
    flags = _parser().parse_args(IMAGES)

    assert flags.health == ("0.0.0.0", 8081)
    assert flags.namespace is None


@pytest.mark.parametrize("address", ["8081", "localhost:", "localhost:http", "localhost:99999"])
def test_an_address_without_a_port_is_refused(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args([*IMAGES, "--health", address])

    assert "HOST:PORT" in capsys.readouterr().err


def test_images_are_told_apart_by_compute_arch_however_it_is_written() -> None:
    said = ["--llama-server-image-for=sm_75=a:7", "--llama-server-image-for=default=b@sha256:1=2"]

    flags = _parser().parse_args([*IMAGES, *said])

    assert flags.llama_server_image_for == [("7.5", "a:7"), ("default", "b@sha256:1=2")]


@pytest.mark.parametrize(
    ("said", "complaint"), [("7.5", "ARCH=IMAGE"), ("ampere=a", "such as 7.5, 75, sm_75")]
)
def test_an_image_for_what_is_no_compute_arch_is_refused(
    said: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args([*IMAGES, "--llama-server-image-for", said])

    assert complaint in capsys.readouterr().err


def test_an_ipv6_address_is_written_in_brackets() -> None:
    assert _parser().parse_args([*IMAGES, "--metrics", "[::]:9"]).metrics == ("::", 9)


@pytest.mark.parametrize("seconds", ["0", "-1", "601", "nan", "long"])
def test_a_silence_that_is_none_or_endless_is_refused(
    seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args([*IMAGES, f"--api-idle-timeout={seconds}"])

    assert "is not 1 to 600 seconds" in capsys.readouterr().err
