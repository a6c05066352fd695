"""Arguments of llama-server that a user adds in `spec.extraArgs`, and those that may not be there.

MANAGED is the one table of flags that the operator sets itself, or that would break what it stands
on: the CRD's rules, their sentences and the table in docs/servers.md come from it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from slotkeeper.api.validation import Rule

ARGUMENTS = 64
CHARACTERS = 4096


@dataclass(frozen=True)
class Managed:
    """Flags that may not be in extraArgs, and what to do instead."""

    flags: tuple[str, ...]
    instead: str

    @property
    def rule(self) -> Rule:
        """What holds of an argument that is none of the flags."""
        return Rule(
            f"!(self.split('=')[0].replace('_', '-') in {list(self.flags)})",
            f"must not be {_either(self.flags)}: {self.instead}",
            lambda argument: _flag(argument) not in self.flags,
        )


def _either(flags: tuple[str, ...]) -> str:
    *others, last = flags
    return f"{', '.join(others)} or {last}" if others else last


def _flag(argument: str) -> str:
    """The flag that llama-server takes an argument for: `_` is `-` to it."""
    return argument.partition("=")[0].replace("_", "-")


def _managed(flags: str, instead: str) -> Managed:
    return Managed(tuple(flags.split()), instead)


MANAGED: tuple[Managed, ...] = (
    _managed(
        "--host --port --reuse-port --api-prefix",
        "the operator says where llama-server listens, for probes, Services and the balancer",
    ),
    _managed(
        "-m --model -mu --model-url -dr --docker-repo -hf -hfr --hf-repo -hff --hf-file "
        "--embd-gemma-default --fim-qwen-1.5b-default --fim-qwen-3b-default "
        "--fim-qwen-7b-default --fim-qwen-7b-spec --fim-qwen-14b-spec --fim-qwen-30b-default "
        "--gpt-oss-20b-default --gpt-oss-120b-default --vision-gemma-4b-default "
        "--vision-gemma-12b-default",
        "set model.url; the model is downloaded and checked before llama-server starts",
    ),
    _managed(
        "-hft --hf-token",
        "set model.tokenSecretRef; arguments are read by whoever may read the pod",
    ),
    _managed(
        "--spec-draft-hf -hfd -hfrd --hf-repo-draft",
        "llama-server downloads nothing itself; name a file with --spec-draft-model",
    ),
    _managed("-a --alias", "set model.alias"),
    _managed(
        "-mm --mmproj -mmu --mmproj-url --mmproj-auto --no-mmproj --no-mmproj-auto",
        "set model.mmproj",
    ),
    _managed("--lora --lora-scaled --lora-init-without-apply", "set model.adapters"),
    _managed("-np --parallel -cb --cont-batching -nocb --no-cont-batching", "set slots"),
    _managed("-c --ctx-size --kv-unified-per-slot", "set contextPerSlot"),
    _managed(
        "-kvu --kv-unified -no-kvu --no-kv-unified",
        "each slot has contextPerSlot tokens of its own, so that a long request aborts no other",
    ),
    _managed("-ctk --cache-type-k -ctv --cache-type-v", "set kvCacheType"),
    _managed("-fa --flash-attn", "set flashAttention"),
    _managed("--jinja --no-jinja", "set jinja"),
    _managed("--chat-template --chat-template-file", "set chatTemplate"),
    _managed("-rea --reasoning", "set reasoning.enabled"),
    _managed("--reasoning-format", "set reasoning.format"),
    _managed("--reasoning-budget", "set reasoning.budgetTokens"),
    _managed("--embedding --embeddings", "set embeddings"),
    _managed("--rerank --reranking", "set embeddings.pooling to rank"),
    _managed("--pooling", "set embeddings.pooling"),
    _managed("-ngl --gpu-layers --n-gpu-layers", "set gpu.layers"),
    _managed("-sm --split-mode", "set gpu.splitMode"),
    _managed("-ts --tensor-split", "set gpu.tensorSplit"),
    _managed(
        "-fit --fit -fitt --fit-target -fitc --fit-ctx",
        "set gpu.layers and contextPerSlot; what they say is not made to fit behind their back",
    ),
    _managed("-cram --cache-ram", "set resources.limits.memory, which it follows"),
    _managed("--api-key --api-key-file", "set balancer.apiKeys; the balancer checks them"),
    _managed(
        "--ssl-key-file --ssl-cert-file",
        "the balancer speaks plain HTTP with llama-server; end TLS at an Ingress or a Gateway",
    ),
    _managed(
        "--cors-origins --cors-methods --cors-headers --cors-credentials --no-cors-credentials",
        "the balancer answers browsers",
    ),
    _managed(
        "--metrics --slots --no-slots",
        "they are always on; the balancer counts slots by them",
    ),
    _managed(
        "--sleep-idle-seconds",
        "set autoscaling.minReplicas to 0; no replica holds no GPU",
    ),
    _managed(
        "--models-dir --models-preset --models-max --models-autoload --no-models-autoload",
        "a LlamaServer serves one model; write one for each",
    ),
    _managed("--rpc", "set workers"),
    _managed(
        "--ui --webui --no-ui --no-webui --ui-config --webui-config --ui-config-file "
        "--webui-config-file --path",
        "the balancer passes on no pages; put a web interface in front of it",
    ),
    _managed(
        "--tools --tools-runtime --mcp-servers-config --mcp-servers-json -ag --agent -no-ag "
        "--no-agent --ui-mcp-proxy --webui-mcp-proxy --no-ui-mcp-proxy --no-webui-mcp-proxy",
        "a request must not run programs in a replica",
    ),
    _managed(
        "--slot-save-path --media-path --log-prompts-dir",
        "a request must not read or write a replica's files",
    ),
    _managed("--props", "the balancer passes on no change of a replica's properties"),
    _managed("--log-disable", "conditions tell what the log says"),
    _managed(
        "-h --help --usage --version -cl --cache-list --completion-bash --list-devices",
        "llama-server would print it and end",
    ),
)
"""Whatever build it is: a flag that is not here is left to the image's llama-server."""

_TWO_IN_ONE = r"^--?[A-Za-z][-A-Za-z0-9_.]*[= \t\n]"

_SEPARATE = Rule(
    f"!self.matches(r'{_TWO_IN_ONE}')",
    "must not hold both a flag and its value, which llama-server does not take apart: write them "
    "as two items",
    lambda argument: re.match(_TWO_IN_ONE, argument) is None,
)

ExtraArg = Annotated[
    str, Field(max_length=CHARACTERS), *(managed.rule for managed in MANAGED), _SEPARATE
]
ExtraArgs = Annotated[list[ExtraArg], Field(max_length=ARGUMENTS)]


def flags_of(extra_args: Iterable[str]) -> frozenset[str]:
    """The flags among arguments, as llama-server reads them: `_` is `-`. Values are among them."""
    return frozenset(map(_flag, extra_args))
