"""What Kubernetes makes of the commands and arguments of a container.

Source: Kubernetes' third_party/forked/golang/expansion.
"""

import re
from collections.abc import Mapping


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Replace $(NAME) by the variable of this name if there is one, and $$ by $."""

    def replacement(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return variables.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", replacement, text)
