import re

import yaml

from chart import CHART
from slotkeeper.api.server import LlamaServer


def test_the_server_in_the_notes_is_valid() -> None:
    notes = (CHART / "templates/NOTES.txt").read_text()
    manifest = re.search(r"<<'EOF'\n(.*?)\n +EOF\n", notes, re.DOTALL)
    assert manifest is not None
    raw = yaml.safe_load(manifest[1])
    raw["metadata"] |= {"namespace": "default", "uid": "1", "generation": 1}

    server = LlamaServer.parse(raw)

    assert server.spec.slots == 4
    assert f"llamaserver/{server.name}" in notes
    assert f"service/{server.name}" in notes
