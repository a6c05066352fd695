"""Reads server-sent events as the HTML standard says; official clients read them the same way."""

from typing import NamedTuple


class Event(NamedTuple):
    name: str
    data: str


def events(body: bytes) -> list[Event]:
    """The events of a complete body. Comments, unknown fields and an event cut off give none."""
    found = []
    name = ""
    data = list[str]()
    for line in body.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif not line:
            if data:
                found.append(Event(name, "\n".join(data)))
            name = ""
            data = []
    return found
