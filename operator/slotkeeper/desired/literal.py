"""Texts in commands and arguments of containers, where Kubernetes replaces some characters."""

import re

_REPLACED = re.compile(r"\$(?=[$(])")


def literal(text: str) -> str:
    """Return what to write for this text into `command` or `args` of a container, or into `command`
    of a probe: there Kubernetes replaces $(NAME) by a variable, and $$ by $.

    Not for hooks, whose commands it leaves as they are.
    """
    return _REPLACED.sub("$$", text)
