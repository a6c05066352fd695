"""Folders by their descriptors."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from slotkeeper.folder_descriptor import names_in, open_folder

FILES = 20
LISTINGS = 4000


def test_listings_at_the_same_time_are_complete(tmp_path: Path) -> None:
    for number in range(FILES):
        (tmp_path / str(number)).touch()
    folder = open_folder(tmp_path)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: len(names_in(folder)), range(LISTINGS)))
    os.close(folder)

    assert set(found) == {FILES}
