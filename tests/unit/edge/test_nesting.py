import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.edge.nesting import nesting

JSON = st.recursive(
    st.none() | st.integers(-99, 99) | st.text('a"\\[]{}é', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text('k"\\[', max_size=3), inner)
    ),
)


def levels(body: bytes) -> list[tuple[bool, int]]:
    """Return for each position whether it is in a string, and the depth: byte by byte."""
    found = [(False, 0)]
    escaped = False
    for byte in body:
        in_string, depth = found[-1]
        if in_string:
            in_string = escaped or byte != ord('"')
            escaped = not escaped and byte == ord("\\")
        elif byte == ord('"'):
            in_string = True
        else:
            depth += (byte in b"[{") - (byte in b"]}")
        found.append((in_string, depth))
    return found


@given(JSON, st.integers(1, 9))
def test_steps_of_any_size_agree_with_a_reading_byte_by_byte(tree: Any, step_bytes: int) -> None:
    body = json.dumps(tree, ensure_ascii=False).encode()
    expected = levels(body)
    steps = list(nesting(body, step_bytes=step_bytes + 1))

    assert [step.begin for step in steps] == [0, *(step.end for step in steps[:-1])]
    assert steps[-1].end == len(body)
    for step in steps:
        depths = [depth for _, depth in expected[step.begin : step.end + 1]]
        assert (step.in_string, step.depth) == expected[step.begin]
        assert (step.lowest, step.highest) == (min(depths), max(depths))


@given(JSON, st.integers(2, 9), st.data())
def test_a_part_of_a_body_is_read_like_the_whole(tree: Any, step_bytes: int, data: Any) -> None:
    body = json.dumps(tree).encode()
    whole = list(nesting(body, step_bytes=step_bytes))
    at = data.draw(st.integers(0, len(whole) - 1))
    first = whole[at]

    assert (
        list(
            nesting(
                body,
                first.begin,
                step_bytes=step_bytes,
                in_string=first.in_string,
                depth=first.depth,
            )
        )
        == whole[at:]
    )
