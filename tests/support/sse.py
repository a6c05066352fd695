"""Parse server-sent events as specified by the HTML standard, as official clients do."""

from typing import NamedTuple


class Event(NamedTuple):
    name: str
    data: str


def events(body: bytes) -> list[Event]:
    """Return the events of a body. Comments, unknown fields and a truncated event are ignored."""
    complete = []
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
                complete.append(Event(name, "\n".join(data)))
            name = ""
            data = []
    return complete
