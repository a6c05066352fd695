"""Additional arguments of llama-server, `spec.extraArgs`, and the flags that are rejected there.

REJECTED is the only table of flags that the operator sets itself or that would break its
assumptions. The CRD's rules, their messages and docs/reference/llama-server-flags.md are generated
from it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from slotkeeper.api.validation import Rule

MAX_ARGUMENTS = 64
MAX_CHARACTERS = 4096


@dataclass(frozen=True)
class RejectedFlags:
    """Flags that must not be in extraArgs, and what to do instead."""

    flags: tuple[str, ...]
    remedy: str

    @property
    def rule(self) -> Rule:
        """The rule that an argument is none of the flags."""
        return Rule(
            f"!(self.split('=')[0].replace('_', '-') in {list(self.flags)})",
            f"must not be {_alternatives(self.flags)}: {self.remedy}",
            lambda argument: _flag(argument) not in self.flags,
        )


def _alternatives(flags: tuple[str, ...]) -> str:
    *others, last = flags
    return f"{', '.join(others)} or {last}" if others else last


def _flag(argument: str) -> str:
    """Return the flag in llama-server's own spelling: it treats `_` as `-`."""
    return argument.partition("=")[0].replace("_", "-")


def _rejected(flags: str, remedy: str) -> RejectedFlags:
    return RejectedFlags(tuple(flags.split()), remedy)


REJECTED: tuple[RejectedFlags, ...] = (
    _rejected(
        "--host --port --reuse-port --api-prefix",
        "the operator sets the address of llama-server, which probes, Services and the balancer "
        "use",
    ),
    _rejected(
        "-m --model -mu --model-url -dr --docker-repo -hf -hfr --hf-repo -hff --hf-file "
        "--embd-gemma-default --fim-qwen-1.5b-default --fim-qwen-3b-default "
        "--fim-qwen-7b-default --fim-qwen-7b-spec --fim-qwen-14b-spec --fim-qwen-30b-default "
        "--gpt-oss-20b-default --gpt-oss-120b-default --vision-gemma-4b-default "
        "--vision-gemma-12b-default",
        "set model.url; the model is downloaded and verified before llama-server starts",
    ),
    _rejected(
        "-hft --hf-token",
        "set model.tokenSecretRef; arguments are visible in the spec of the pod",
    ),
    _rejected(
        "--spec-draft-model -md --model-draft --spec-draft-hf -hfd -hfrd --hf-repo-draft",
        "set speculative.draft; it is downloaded and verified before llama-server starts",
    ),
    _rejected("--spec-type", "set speculative.type"),
    _rejected("--spec-default", "set speculative.type to ngram-mod"),
    _rejected(
        "--spec-draft-n-max --spec-ngram-mod-n-max --spec-ngram-mod-n-min "
        "--spec-ngram-simple-size-m --spec-ngram-map-k-size-m --spec-ngram-map-k4v-size-m",
        "set speculative.maxTokens",
    ),
    _rejected("--spec-draft-p-min --draft-p-min", "set speculative.minProbability"),
    _rejected(
        "--spec-draft-ngl -ngld --gpu-layers-draft --n-gpu-layers-draft",
        "set speculative.draft.gpuLayers",
    ),
    _rejected("-a --alias", "set model.alias"),
    _rejected(
        "-mm --mmproj -mmu --mmproj-url --mmproj-auto --no-mmproj --no-mmproj-auto",
        "set model.mmproj",
    ),
    _rejected("--mmproj-offload --no-mmproj-offload", "set model.mmproj.offload"),
    _rejected("--lora --lora-scaled --lora-init-without-apply", "set model.adapters"),
    _rejected("-np --parallel -cb --cont-batching -nocb --no-cont-batching", "set slots"),
    _rejected("-c --ctx-size --kv-unified-per-slot", "set contextPerSlot"),
    _rejected(
        "-kvu --kv-unified -no-kvu --no-kv-unified",
        "each slot has its own contextPerSlot tokens, so that a long request aborts no other one",
    ),
    _rejected("-ctxcp --ctx-checkpoints --swa-checkpoints", "set contextCheckpoints"),
    _rejected("-ctk --cache-type-k -ctv --cache-type-v", "set kvCacheType"),
    _rejected("-fa --flash-attn", "set flashAttention"),
    _rejected("--jinja --no-jinja", "set jinja"),
    _rejected("--chat-template --chat-template-file", "set chatTemplate"),
    _rejected("--chat-template-kwargs", "set chatTemplateKwargs"),
    _rejected("-rea --reasoning", "set reasoning.enabled"),
    _rejected("--reasoning-format", "set reasoning.format"),
    _rejected("--reasoning-budget", "set reasoning.budgetTokens"),
    _rejected("--temp --temperature", "set sampling.temperature"),
    _rejected("--top-k", "set sampling.topK"),
    _rejected("--top-p", "set sampling.topP"),
    _rejected("--min-p", "set sampling.minP"),
    _rejected("--repeat-penalty", "set sampling.repeatPenalty"),
    _rejected("--repeat-last-n", "set sampling.repeatLastN"),
    _rejected("--presence-penalty", "set sampling.presencePenalty"),
    _rejected("--frequency-penalty", "set sampling.frequencyPenalty"),
    _rejected("-s --seed", "set sampling.seed"),
    _rejected("--embedding --embeddings", "set embeddings"),
    _rejected("--rerank --reranking", "set embeddings.pooling to rank"),
    _rejected("--pooling", "set embeddings.pooling"),
    _rejected("-ngl --gpu-layers --n-gpu-layers", "set gpu.layers"),
    _rejected("-cmoe --cpu-moe -ncmoe --n-cpu-moe", "set gpu.cpuMoeLayers"),
    _rejected("-sm --split-mode", "set gpu.splitMode"),
    _rejected("-mg --main-gpu", "set gpu.mainGpu"),
    _rejected("-ts --tensor-split", "set gpu.tensorSplit"),
    _rejected(
        "-fit --fit -fitt --fit-target -fitc --fit-ctx",
        "set gpu.layers and contextPerSlot; llama-server must not change them to fit the GPU",
    ),
    _rejected("-cram --cache-ram", "set resources.limits.memory, which determines it"),
    _rejected("--api-key --api-key-file", "set balancer.apiKeys; the balancer verifies API keys"),
    _rejected(
        "--ssl-key-file --ssl-cert-file",
        "the balancer connects to llama-server by plain HTTP; terminate TLS at an Ingress or a "
        "Gateway",
    ),
    _rejected(
        "--cors-origins --cors-methods --cors-headers --cors-credentials --no-cors-credentials",
        "the balancer sets the CORS headers",
    ),
    _rejected(
        "--metrics --slots --no-slots",
        "both endpoints are always enabled; the balancer needs them",
    ),
    _rejected(
        "--sleep-idle-seconds",
        "set autoscaling.minReplicas to 0, which also releases the GPUs",
    ),
    _rejected(
        "--models-dir --models-preset --models-max --models-autoload --no-models-autoload",
        "a LlamaServer serves one model; create one for each model",
    ),
    _rejected("--rpc", "set workers"),
    _rejected(
        "--ui --webui --no-ui --no-webui --ui-config --webui-config --ui-config-file "
        "--webui-config-file --path",
        "the balancer does not serve web pages; run a web interface in front of it",
    ),
    _rejected(
        "--tools --tools-runtime --mcp-servers-config --mcp-servers-json -ag --agent -no-ag "
        "--no-agent --ui-mcp-proxy --webui-mcp-proxy --no-ui-mcp-proxy --no-webui-mcp-proxy",
        "a request must not run programs in a replica",
    ),
    _rejected(
        "--slot-save-path --media-path --log-prompts-dir",
        "a request must not read or write a replica's files",
    ),
    _rejected("--props", "the balancer does not forward changes of a replica's properties"),
    _rejected("--log-disable", "messages of conditions quote the log"),
    _rejected(
        "-h --help --usage --version -cl --cache-list --completion-bash --list-devices",
        "llama-server would print the output and exit",
    ),
)
"""For every build of llama.cpp. Other flags are checked by the image's llama-server alone."""

_FLAG_AND_VALUE = r"^--?[A-Za-z][-A-Za-z0-9_.]*[= \t\n]"

_SEPARATE = Rule(
    f"!self.matches(r'{_FLAG_AND_VALUE}')",
    "must not contain both a flag and its value, which llama-server does not split: write them "
    "as two items",
    lambda argument: re.match(_FLAG_AND_VALUE, argument) is None,
)

_NO_VARIABLES = Rule(
    "!self.contains('$(')",
    "must not contain $(: Kubernetes would replace $(NAME) by a variable, which may contain a flag "
    "that the operator sets. Write the value itself",
    lambda argument: "$(" not in argument,
)

ExtraArg = Annotated[
    str,
    Field(max_length=MAX_CHARACTERS),
    *(rejected.rule for rejected in REJECTED),
    _SEPARATE,
    _NO_VARIABLES,
]
ExtraArgs = Annotated[list[ExtraArg], Field(max_length=MAX_ARGUMENTS)]


def flags_of(extra_args: Iterable[str]) -> frozenset[str]:
    """Return the arguments in llama-server's spelling of flags (`-` for `_`), values included."""
    return frozenset(map(_flag, extra_args))
