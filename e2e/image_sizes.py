"""Print the sizes of our images on the node of a cluster, compressed, as they are pulled.

python e2e/image_sizes.py --name test
"""

import argparse
import re

from stack import Cluster

OURS = re.compile(r"(?:.*/)?slotkeeper/([a-z0-9-]+):.*")
"""The name of an image in the node's status."""


def sizes(cluster: Cluster) -> dict[str, int]:
    """Return the size of each of our images in bytes; of several versions, of the largest."""
    found: dict[str, int] = {}
    for node in cluster.get("nodes")["items"]:
        for image in node["status"]["images"]:
            for name in filter(None, map(OURS.fullmatch, image["names"])):
                found[name[1]] = max(found.get(name[1], 0), image["sizeBytes"])
    return found


def main() -> None:
    """Print a line for each image."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", required=True, help="name of the cluster")
    for name, size in sorted(sizes(Cluster(parser.parse_args().name)).items()):
        print(f"{name:24} {size / 1e6:6.0f} MB")


if __name__ == "__main__":
    main()
