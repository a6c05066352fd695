"""Numbers of bytes as text."""

GIB = 1024**3
MIB = 1024**2


def texts(*sizes: int) -> list[str]:
    """Return sizes that are compared with each other as text, such as `18.3 GiB`.

    In MiB where different ones would look equal; and, if one is below 1 GiB, all below 10 GiB.
    """
    rounded = [f"{size / GIB:.1f} GiB" for size in sizes]
    look_equal = len(set(rounded)) < len(set(sizes))
    has_small = min(sizes) < GIB
    return [
        _mib(size) if look_equal or (has_small and size < 10 * GIB) else text
        for size, text in zip(sizes, rounded, strict=True)
    ]


def text(size: int) -> str:
    """Return one size as text."""
    return texts(size)[0]


def _mib(size: int) -> str:
    # Rounded up, what does not fit into a GPU of whole MiB looks larger than it.
    return f"{-(-size // MIB)} MiB"
