import io
import json
import logging
import re

import pytest

from slotkeeper import logs


def configured(form: str, level: str = "info") -> io.StringIO:
    """The stream to which everything is logged from now on."""
    stream = io.StringIO()
    logs.configure(form, level, stream=stream)
    return stream


def test_text_is_a_line_with_time_level_name_and_message() -> None:
    stream = configured("text")

    logging.getLogger("slotkeeper.a").info("replica %s ejected", "b")

    line = stream.getvalue()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO slotkeeper\.a: replica b ejected\n", line
    )


def test_text_of_a_command_is_as_argparse_prints_errors() -> None:
    stream = io.StringIO()
    logs.configure("text", "info", stream=stream, command="slotkeeper plan")

    logging.getLogger("slotkeeper.a").error("no file\n%s", "x")

    assert stream.getvalue() == "slotkeeper plan: error: no file\\nx\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1_795_975_065, "2026-11-29T17:57:45Z"),
        (0, "1970-01-01T00:00:00Z"),
        # Times of files, which others may set.
        (-1, "1970-01-01T00:00:00Z"),
        (2**63 / 10**9, "2262-04-11T23:47:16Z"),
        (2**63, "9999-12-31T23:59:59Z"),
    ],
)
def test_every_time_has_a_text(seconds: float, text: str) -> None:
    assert logs.utc_text(seconds) == text


def test_a_message_cannot_look_like_a_separate_record() -> None:
    stream = configured("text")

    logging.getLogger("slotkeeper.a").info(
        "received %s", "x\n2026-11-28T12:00:00Z INFO b: \x1b[2Jy"
    )

    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def test_json_is_one_object_per_line() -> None:
    stream = configured("json")

    logging.getLogger("slotkeeper.a").warning("a\nb")

    [line] = map(json.loads, stream.getvalue().splitlines())
    assert line.pop("time") > 0
    assert line == {"level": "warning", "logger": "slotkeeper.a", "message": "a\nb"}


@pytest.mark.parametrize("form", logs.FORMATS)
def test_an_exception_is_logged_with_its_traceback(form: str) -> None:
    stream = configured(form)

    try:
        raise ValueError("reason")
    except ValueError:
        logging.getLogger("slotkeeper.a").exception("failed")

    assert "Traceback (most recent call last)" in stream.getvalue()
    assert "ValueError: reason" in stream.getvalue()


@pytest.mark.parametrize(("level", "count"), [("debug", 3), ("info", 2), ("error", 0)])
def test_records_below_the_level_are_not_logged(level: str, count: int) -> None:
    stream = configured("json", level)
    log = logging.getLogger("slotkeeper.a")

    log.debug("a")
    log.info("b")
    log.warning("c")

    assert len(stream.getvalue().splitlines()) == count


def test_libraries_log_warnings_only_since_urls_may_hold_tokens() -> None:
    stream = configured("json", "debug")

    logging.getLogger("httpx").info("GET https://a/?token=b")

    assert stream.getvalue() == ""
