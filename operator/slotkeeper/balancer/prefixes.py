"""The prefix hashes of a request's prompt."""

from slotkeeper.edge.json_members import Members
from slotkeeper.llamacpp.prompt_fields import PROMPT_FIELDS, without_billing_code
from slotkeeper.scheduling import PREFIX_SIZES, PrefixHashes, prefix_hashes

MIN_PROMPT_BYTES = PREFIX_SIZES[0]
"""A smaller body has no prefixes."""
_MAX_PROMPT_BYTES = PREFIX_SIZES[-1]
_MAX_SETTING = 1024 * 1024
"""Bytes of a setting that are compared, such as the list of tools: a third of a millisecond."""


def prefixes(path: bytes, members: Members) -> PrefixHashes:
    """Return the hashes of the prompt of a request on `path`, one of PROMPT_FIELDS."""
    names, settings = PROMPT_FIELDS[path]
    spans = members.spans
    prompt = b""
    others: list[bytes] = []
    for name in names:
        # A longer array or string has another byte in the place of its last one.
        if name in spans and (value := members.value(name, _MAX_PROMPT_BYTES - len(prompt) + 1)):
            others.append(name.encode())
            prompt += without_billing_code(value[:-1]) if name == "system" else value[:-1]
    for name in settings:
        if name in spans and (value := members.value(name, _MAX_SETTING)):
            others += (name.encode(), value)
    return prefix_hashes(prompt, others)


def uses_restored_slot(members: Members) -> bool:
    """Whether llama-server would use the slot of a restored prompt: unless the client selects
    another slot, or no cache."""
    any_slot = members.value("id_slot", 3) in {b"", b"-1"}
    return any_slot and members.value("cache_prompt", 6) != b"false"
