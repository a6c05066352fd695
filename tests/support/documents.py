"""The repository's documents, and what is read from them: links, code blocks, tables."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in DOCS.rglob("*.md")),
]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\|(.*)\|$", re.MULTILINE)


def name(document: Path) -> str:
    """Return the path of a document from the repository's root."""
    return str(document.relative_to(ROOT))


def code_blocks(text: str, language: str) -> list[str]:
    """Return the fenced code blocks of one language; "": blocks without one."""
    return [body for found, body in _FENCE.findall(text) if found == language]


def prose(text: str) -> str:
    """Return a document without its fenced code blocks."""
    return _FENCE.sub("", text)


def inline_code(text: str) -> list[str]:
    """Return the inline code outside of code blocks, with line breaks as spaces."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(text))]


def commands(text: str) -> Iterator[str]:
    """Yield each command of the console blocks, with its continued lines joined."""
    for block in code_blocks(text, "console"):
        joined = block.replace("\\\n", " ")
        yield from re.findall(r"^\$ (.*)", joined, re.MULTILINE)


def links(text: str) -> list[str]:
    """Return the targets of all links and images."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))


def anchors(text: str) -> set[str]:
    """Return the anchors of a document as GitHub generates them, and its explicit ones."""
    seen = Counter[str]()
    found = set(re.findall(r'<a id="([^"]+)"></a>', text))
    for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w -]", "", shown.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def section(text: str, heading: str) -> str:
    """Return the text below a heading, down to the next heading of its level or a higher one.

    Raises ValueError unless there is exactly one.
    """
    level = len(heading) - len(heading.lstrip("#"))
    pattern = rf"^{re.escape(heading)}$\n(.*?)(?=^#{{1,{level}}} |\Z)"
    [body] = re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    return str(body)


def tables(text: str) -> list[list[list[str]]]:
    """Return all tables: of each, the rows of stripped cells without the rule below the header."""
    found: list[list[list[str]]] = []
    end = -1
    for match in _ROW.finditer(text):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", match[1])]
        if match.start() != end + 1:
            found.append([])
        end = match.end()
        if set("".join(cells)) - set("-: "):
            found[-1].append(cells)
    return found


def table(text: str, *header: str) -> list[list[str]]:
    """Return the rows of the one table with this header. Raises ValueError unless it has rows."""
    [rows] = [rows[1:] for rows in tables(text) if rows[0] == list(header)]
    if not rows:
        raise ValueError(f"the table {header} is empty")
    return rows


def codes(cell: str) -> list[str]:
    """Return the inline code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def first_codes(rows: list[list[str]]) -> list[str]:
    """Return the inline code in the first cells."""
    return [code for row in rows for code in codes(row[0])]
