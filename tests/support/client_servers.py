"""The models of the tests with client libraries: what each llama-server is started with.

They run on a cluster, as LlamaServers, and without one. No hypothesis and no pydantic: these tests
have packages of their own.
"""

from dataclasses import dataclass, field
from typing import Any

# The model of tools ends its texts, as a JSON schema requires.
CHAT, TOOLS, EMBEDDINGS, RERANK, AT_ZERO = "chat", "tools", "embed", "rerank", "sleepy"
CONTEXT = 2048
KEY_NAME, KEY = "ann", "key-of-ann"
ALIAS = "gpt-4o"

CALL_MARK, CALL_END = "~", "`"
"""One character each, before and after a tool call: the demo model generates single bytes."""
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n"
    "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}"
    + CALL_MARK
    + '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    + CALL_END
    + "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Otherwise the tokenizer changes the beginning of a prompt, which a grammar for JSON then rejects.
_AS_WRITTEN = ("--override-kv", "tokenizer.ggml.add_space_prefix=bool:false")
# The random weights end a text anywhere, also before its first character; and llama-server b11669
# omits the beginning of a stream of Anthropic's API whose first token is a part of a character.
_ENDLESS = (*_AS_WRITTEN, "--ignore-eos", "--grammar", "root ::= [a-z ]+")
# They never begin a tool call by themselves. 3 is the number of the first byte.
_CALLS_TOOLS = ("--logit-bias", f"{3 + ord(CALL_MARK)}+100")


@dataclass(frozen=True)
class ClientServer:
    """One model."""

    name: str
    extra_args: tuple[str, ...] = _AS_WRITTEN
    pooling: str | None = None
    """Of a server for embeddings or rerankings."""
    at_zero: bool = False
    """It has no replica until a request starts one."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Further fields of the LlamaServer's spec."""

    @property
    def generates(self) -> bool:
        """Whether it generates text."""
        return self.pooling is None


SERVERS = (
    ClientServer(CHAT, _ENDLESS),
    ClientServer(TOOLS, (*_AS_WRITTEN, *_CALLS_TOOLS)),
    ClientServer(EMBEDDINGS, pooling="mean"),
    ClientServer(RERANK, pooling="rank"),
    ClientServer(
        AT_ZERO,
        _ENDLESS,
        at_zero=True,
        fields={
            "autoscaling": {"minReplicas": 0, "maxReplicas": 1, "idleSeconds": 300},
        },
    ),
)


def spec(server: ClientServer, url: str) -> dict[str, Any]:
    """Return the spec of its LlamaServer, with the model at this URL."""
    cpu = {"requests": {"cpu": "50m"}, "limits": {"cpu": 1}}
    found: dict[str, Any] = {
        "model": {"url": url},
        "slots": 2,
        "contextPerSlot": CONTEXT,
        "gpu": {"count": 0},
        "resources": cpu,
        "balancer": {"replicas": 1, "heartbeatSeconds": 1},
        "extraArgs": list(server.extra_args),
        **server.fields,
    }
    if server.generates:
        found["chatTemplate"] = TEMPLATE
    else:
        found["embeddings"] = {"pooling": server.pooling}
    return found


GATEWAY: dict[str, Any] = {
    "aliases": {ALIAS: CHAT},
    "apiKeys": {"secretRef": {"name": "keys"}},
    "replicas": 1,
}
"""The spec of the LlamaGateway."""
