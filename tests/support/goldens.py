"""The golden manifests in tests/golden: `python tests/support/goldens.py` writes them.

Each case is a folder with a server.yaml or a gateway.yaml. Gateways and four of the servers contain
all their manifests; the other servers contain only the differences from the base case, a server
with nothing but a model. These are rendered with
the name of the base, so that the differences are the effect of the spec alone.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import override

from llamagateways import gateway_cases, only_gateway, parsed_gateway
from llamaservers import DOWNLOADS, GOLDEN, IMAGES, golden_cases, only_server, parsed
from slotkeeper.desired import gateway
from slotkeeper.desired.manifests import manifests

Manifest = dict[str, Any]

BASE = "minimal"
COMPLETE = {BASE, "queue-and-keys", "rpc-group", "shared-gpu-nodes"}
"""Cases with all manifests. Together they contain almost every field."""

WITH_OWN_NAME = {"longest-name"}
"""Cases about names."""

CONTEXT_LINES = 2


def golden_files() -> dict[Path, str]:
    """The text of each golden file."""
    base = _manifests(GOLDEN / BASE)
    servers = dict(_golden(case, base) for case in golden_cases())
    return servers | dict(map(_gateway_golden, gateway_cases()))


def existing_files() -> set[Path]:
    """All files of the cases except for their resources."""
    files = (path for path in GOLDEN.glob("*/*") if path.parent.name != "__pycache__")
    return {path for path in files if path.name not in {"server.yaml", "gateway.yaml"}}


def write_goldens() -> None:
    """Write all golden files, and delete superfluous ones."""
    files = golden_files()
    for path in existing_files() - set(files):
        path.unlink()
    for path, text in files.items():
        path.write_text(text)


def _golden(case: Path, base: Sequence[Manifest]) -> tuple[Path, str]:
    if case.name in COMPLETE:
        return case / "manifests.yaml", "---\n".join(map(_text, _manifests(case)))
    metadata = {} if case.name in WITH_OWN_NAME else {"name": BASE, "namespace": "default"}
    lines = _diff(base, _manifests(case, **metadata), case.name)
    return case / "manifests.diff", "".join(f"{line}\n" for line in lines)


def _gateway_golden(case: Path) -> tuple[Path, str]:
    found = gateway.manifests(parsed_gateway(only_gateway(case / "gateway.yaml")), IMAGES)
    return case / "manifests.yaml", "---\n".join(map(_text, found))


def _manifests(case: Path, **metadata: str) -> list[Manifest]:
    raw = only_server(case / "server.yaml")
    server = parsed({**raw, "metadata": {**raw["metadata"], **metadata}})
    scaling = server.spec.autoscaling
    replicas = server.spec.replicas if scaling is None else scaling.min_replicas
    return manifests(server, replicas, IMAGES, downloads=DOWNLOADS)


def _text(manifest: Manifest) -> str:
    text: str = yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=100)
    return text


class _Dumper(yaml.SafeDumper):
    """Writes scripts line by line."""

    @override
    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


def _diff(base: Sequence[Manifest], other: Sequence[Manifest], name: str) -> Iterator[str]:
    """A unified diff of the manifests' text, object by object."""
    before, after = _by_position(base), _by_position(other)
    for key in dict.fromkeys(chain(before, after)):
        old, new = before.get(key), after.get(key)
        hunks = list(_hunks(_lines(old), _lines(new)))
        if hunks:
            yield f"--- {BASE}: {_title(old)}"
            yield f"+++ {name}: {_title(new)}"
            yield from hunks


def _by_position(found: Sequence[Manifest]) -> Mapping[tuple[str, int], Manifest]:
    """Manifests by kind and position within their kind, since names may differ."""
    seen: Counter[str] = Counter()
    result = {}
    for manifest in found:
        result[manifest["kind"], seen[manifest["kind"]]] = manifest
        seen[manifest["kind"]] += 1
    return result


def _lines(manifest: Manifest | None) -> list[str]:
    return _text(manifest).splitlines() if manifest else []


def _title(manifest: Manifest | None) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}" if manifest else "(none)"


def _hunks(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    for group in matcher.get_grouped_opcodes(CONTEXT_LINES):
        tag, i1, _, j1, _ = next(opcode for opcode in group if opcode[0] != "equal")
        yield f"@@ {_path(new, j1) if tag == 'insert' else _path(old, i1)} @@"
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                yield from (f" {line}" for line in old[i1:i2])
            else:
                yield from (f"-{line}" for line in old[i1:i2])
                yield from (f"+{line}" for line in new[j1:j2])


def _path(lines: Sequence[str], number: int) -> str:
    """Path of the object or list that contains a line of YAML."""
    steps: list[str] = []
    depth = _depth(lines[number])
    for line in reversed(lines[:number]):
        if _depth(line) < depth:
            depth = _depth(line)
            steps.append(_step(line))
    return "".join(reversed(steps)).removeprefix(".")


def _depth(line: str) -> int:
    # A list item is deeper than the key of its list, which has the same indentation.
    indent = len(line) - len(line.lstrip())
    return 2 * indent + line.lstrip().startswith("- ")


def _step(line: str) -> str:
    if item := re.fullmatch(r" *- (?:name: )?(.*)", line):
        return f"[{item[1]}]"
    return f".{line.strip().partition(':')[0]}"


if __name__ == "__main__":
    write_goldens()
