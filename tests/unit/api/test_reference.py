import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from slotkeeper.api import reference
from slotkeeper.api.crd import crd
from slotkeeper.api.extra_args import REJECTED
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.reference import CONDITIONS_PAGE, FIELDS_PAGE, FLAGS_PAGE, FOLDER, anchor, pages


def paths(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """The path of an object and of all fields in it."""
    yield path
    for name, field in schema.get("properties", {}).items():
        items = field.get("items", {})
        if "properties" in items:
            yield from paths(items, f"{path}.{name}[]")
        else:
            yield from paths(field, f"{path}.{name}")


def anchors(text: str) -> list[str]:
    """The anchors of a page on GitHub."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return [*map(anchor, headings), *re.findall(r'<a id="([^"]+)"></a>', text)]


@pytest.mark.parametrize(("name", "text"), pages().items())
def test_each_page_is_generated_from_the_models(name: str, text: str) -> None:
    assert (FOLDER / name).read_text() == text, "run `make crds`"


def test_there_is_no_other_page() -> None:
    assert {file.name for file in FOLDER.iterdir()} == set(pages())


def test_each_field_has_one_anchor() -> None:
    (version,) = crd()["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    fields = [path for name in ("spec", "status") for path in paths(properties[name], name)]

    found = Counter(anchors(pages()[FIELDS_PAGE]))

    assert len(fields) > 150
    assert {path: found[anchor(path)] for path in fields} == dict.fromkeys(fields, 1)


@pytest.mark.parametrize("text", pages().values(), ids=pages())
def test_each_link_within_a_page_has_a_target(text: str) -> None:
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= set(anchors(text))


def test_each_reason_has_an_anchor() -> None:
    assert {anchor(reason) for reason in Reason} <= set(anchors(pages()[CONDITIONS_PAGE]))


def test_each_rejected_flag_is_listed_with_its_remedy() -> None:
    rows = pages()[FLAGS_PAGE].splitlines()

    for rejected in REJECTED:
        flags = ", ".join(f"`{flag}`" for flag in rejected.flags)
        assert f"| {flags} | {rejected.remedy} |" in rows


def entry(path: str) -> str:
    """The entry of one field, down to the next one."""
    page = pages()[FIELDS_PAGE]
    [found] = re.findall(rf'(?ms)^- <a id="{anchor(path)}"></a>.*?(?=^- |^#|^Rules|\Z)', page)
    return str(found).strip()


def test_a_field_has_its_type_bounds_description_default_and_example() -> None:
    assert entry("spec.balancer.queueTimeoutSeconds") == (
        '- <a id="specbalancerqueuetimeoutseconds"></a>**queueTimeoutSeconds** '
        "(integer, 1 to 86400)\n"
        "\n"
        "  Maximum time in seconds that a request waits for a slot, 1 to 86400. It is then "
        "rejected with status 503. Keep it below the timeout of the clients.\n"
        "\n"
        "  Default: `60`. Example: `300`"
    )


@pytest.mark.parametrize(
    ("path", "facts"),
    [
        ("spec.model.url", "(string, up to 2048 characters, required)"),
        ("spec.gpu.minMemory", "(quantity)"),
        ("spec.gpu.computeArch", "(string or number, 1 to 999)"),
        ("spec.gpu.tensorSplit", "(list of number, 1 to 128 items, each 0 to 1000000)"),
        ("spec.resources.limits", "(map of string to quantity, up to 16 entries)"),
        ("spec.update.maxSurge", "(integer or string, up to 4 characters)"),
        ("spec.flashAttention", "(string, one of `auto`, `enabled`, `disabled`)"),
        ("spec.placement.affinity.nodeAffinity", "(object)"),
        ("status.queued", "(integer, at least 0)"),
        ("status.scaling.lastScaleTime", "(date-time)"),
    ],
)
def test_a_type_names_its_bounds(path: str, facts: str) -> None:
    assert entry(path).splitlines()[0].endswith(f"** {facts}")


def test_rules_follow_the_description() -> None:
    assert "  Rules: must be from 1Mi to 1Ti\n" in entry("spec.gpu.minMemory")
    assert f"  Rules: see [{FLAGS_PAGE}]({FLAGS_PAGE}).\n" in entry("spec.extraArgs")


def test_pages_are_written_to_their_folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "reference")

    reference.main()

    assert {file.name for file in (tmp_path / "reference").iterdir()} == set(pages())
