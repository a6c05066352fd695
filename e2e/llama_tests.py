"""llama.cpp's own tests of llama-server: which are run, and which differ through the balancer."""

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from stack import LLAMA_SERVER, Cluster, Image

IMAGE = Image(
    "llama-tests",
    (
        "images/llama-tests",
        "images/llama-server/source.txt",
        "requirements/llama-tests.txt",
        "operator/slotkeeper",
        "build/models/quick.gguf",
        "build/models/quick-lora.gguf",
    ),
    arguments=(f"LLAMA_SERVER=docker.io/{LLAMA_SERVER.reference}",),
)
POD = "llama-tests"
MINUTES = 40

_ROUTER = "tests llama-server's router of several models; a LlamaServer has one model"
_HUB = "needs a model of the Hugging Face hub"
_COUNTS = "expects token counts of another model; the demo's has one token for each byte"
_CONTEXT = "its prompt does not fit into the context, with one token for each byte"
_BYTES = "expects whole characters from each token; the demo model generates single bytes"
_SPACES = "expects a tokenizer that restores spaces"
_NO_PAGE = "llama-server is built without its web page"

FILES_LEFT_OUT: Mapping[str, str] = {
    "test_kv_keep_only_active.py": "reads a log as UTF-8, with the demo model's bytes in it",
    "test_mcp_servers.py": _ROUTER,
    "test_rerank.py": _HUB,
    "test_router.py": _ROUTER,
    "test_sleep.py": "tests a llama-server that unloads its model; the operator scales to zero",
    "test_stream.py": _ROUTER,
    "test_systemone.py": _HUB,
    "test_tools_builtin.py": _ROUTER,
    "test_vision_api.py": _HUB,
}

_CHAT = "unit/test_chat_completion.py::"
_ANTHROPIC = "unit/test_compat_anthropic.py::"
_COMPLETION = "unit/test_completion.py::"
_EMBEDDING = "unit/test_embedding.py::"
_TOOLS = "unit/test_tool_call.py::"

LEFT_OUT: Mapping[str, str] = {
    "unit/test_basic.py::test_load_split_model": _HUB,
    "unit/test_basic.py::test_no_ui": _NO_PAGE,
    f"{_CHAT}test_chat_completion[None-Book-": _COUNTS,
    f"{_CHAT}test_chat_completion[codellama70b-": _COUNTS,
    f"{_CHAT}test_chat_completion_cached_tokens": _COUNTS,
    f"{_CHAT}test_chat_completion_stream[": _BYTES,
    f"{_CHAT}test_chat_template": _SPACES,
    f"{_CHAT}test_chat_template_assistant_prefill": _CONTEXT,
    f"{_CHAT}test_chat_template_continue_final_message_vllm_compat": _CONTEXT,
    f"{_CHAT}test_completion_with_json_schema[True-json_schema1": "fails on llama-server itself",
    f"{_CHAT}test_chat_completion_with_timings_per_token": _BYTES,
    f"{_CHAT}test_return_progress[64-4-False]": _COUNTS,
    f"{_ANTHROPIC}test_anthropic_vision_base64_with_multimodal_model": _HUB,
    f"{_ANTHROPIC}test_anthropic_thinking_with_reasoning_model": _HUB,
    f"{_COMPLETION}test_completion[": _COUNTS,
    f"{_COMPLETION}test_completion_stream[": _COUNTS,
    f"{_COMPLETION}test_completion_stream_vs_non_stream": _BYTES,
    f"{_COMPLETION}test_completion_stream_with_openai_library_stops": _HUB,
    f"{_COMPLETION}test_completion_parallel_slots[4-6]": _BYTES,
    f"{_COMPLETION}test_completion_response_fields[I believe the meaning of life is-32": _SPACES,
    f"{_COMPLETION}test_n_probs": _BYTES,
    f"{_COMPLETION}test_n_probs_post_sampling": _BYTES,
    f"{_COMPLETION}test_n_probs_post_backend_sampling": _BYTES,
    f"{_COMPLETION}test_completion_prompt_cache": _COUNTS,
    "unit/test_ctx_shift.py::test_ctx_shift_enabled": _CONTEXT,
    "unit/test_ctx_shift.py::test_ctx_shift_disabled_short_prompt[-1-": _COUNTS,
    f"{_EMBEDDING}test_embedding_multiple_with_fa": _CONTEXT,
    f"{_EMBEDDING}test_embedding_pooling_none": _COUNTS,
    f"{_EMBEDDING}test_embedding_error_prompt_too_long": _CONTEXT,
    f"{_EMBEDDING}test_embedding_usage_single": _COUNTS,
    f"{_EMBEDDING}test_embedding_usage_multiple": _COUNTS,
    "unit/test_metrics.py::test_metrics_timings_on_prompt_progress": _CONTEXT,
    "unit/test_proxy.py::test_mcp_proxy": "needs the Internet",
    "unit/test_security.py::test_access_static_assets_without_api_key": _NO_PAGE,
    "unit/test_security.py::test_local_media_file": _HUB,
    "unit/test_slot_save.py::test_slot_save_restore": _COUNTS,
    "unit/test_slot_save.py::test_slot_erase": _COUNTS,
    "unit/test_slot_save.py::test_slot_restore_legacy_token_list": _COUNTS,
    "unit/test_slot_save.py::test_slot_save_restore_text_only_on_multimodal": _HUB,
    "unit/test_slot_save.py::test_slot_save_restore_with_image": _HUB,
    "unit/test_slot_save.py::test_slot_save_restore_with_two_images": _HUB,
    "unit/test_slot_save.py::test_slot_save_restore_with_image_across_restart": _HUB,
    "unit/test_slot_save.py::test_slot_save_restore_image_payload_larger_than_context": _HUB,
    "unit/test_slot_save.py::test_slot_restore_media_file_without_mmproj": _HUB,
    "unit/test_speculative.py::test_slot_ctx_not_exceeded": _CONTEXT,
    "unit/test_speculative.py::test_with_ctx_shift": _CONTEXT,
    "unit/test_tokenize.py::test_tokenize_detokenize": _SPACES,
    f"{_TOOLS}test_completion_with_required_tool_real_model": _HUB,
    f"{_TOOLS}test_completion_without_tool_call_slow[meetkai-functionary-medium-v3.2-": "expects "
    "text in the format of the template",
    f"{_TOOLS}test_hello_world": _HUB,
    f"{_TOOLS}test_weather": _HUB,
    f"{_TOOLS}test_calc_result": _HUB,
    f"{_TOOLS}test_thoughts": _HUB,
}
"""Tests that are not run, with the reason: a test with all of its parameters, or a prefix."""

_BASIC = "unit/test_basic.py::"
_PROXY = "unit/test_proxy.py::"
_SECURITY = "unit/test_security.py::"
_CORS = "OPTIONS"
_NOT_FORWARDED = "`/cors-proxy`, `/predict`"
_ADMINISTRATION = "`POST /props`, `/slots/ID`, `/lora-adapters`, `/models/load`, the web page"
_FLAGS = "`/slots` and `/metrics`"

DIFFERENCES: Mapping[str, str] = {
    f"{_BASIC}test_server_props": "`/props`",
    f"{_BASIC}test_server_slots": _FLAGS,
    f"{_BASIC}test_server_model_aliases_and_tags": "`id` of the model",
    "unit/test_compat_gcp.py::test_gcp_predict_camel_case": _NOT_FORWARDED,
    "unit/test_compat_gcp.py::test_gcp_predict_multiple_instances": _NOT_FORWARDED,
    "unit/test_lora.py::test_lora": _ADMINISTRATION,
    "unit/test_metrics.py::test_metrics_disabled": _FLAGS,
    f"{_PROXY}test_mcp_no_proxy": _NOT_FORWARDED,
    f"{_PROXY}test_mcp_proxy_custom_port": _NOT_FORWARDED,
    f"{_PROXY}test_mcp_proxy_no_content": _NOT_FORWARDED,
    f"{_SECURITY}test_cors_options": _CORS,
    f"{_SECURITY}test_cors_origins_localhost_reflects": _CORS,
    f"{_SECURITY}test_cors_origins_localhost_rejects": _CORS,
    f"{_SECURITY}test_cors_origins_defaults_to_localhost_with_tools_enabled": _CORS,
    f"{_SECURITY}test_cors_proxy_only_forwards_explicit_proxy_headers": _NOT_FORWARDED,
}
"""Tests that pass only without the balancer, each with all of its parameters, and the first cell of
its row in the table of differences in docs/reference/http-api.md."""


def run(cluster: Cluster, namespace: str) -> dict[str, tuple[str, str]]:
    """Run the tests in a pod. Return the outcome of each without and with a balancer: `passed`,
    `skipped`, or the failure's message. Raises RuntimeError if they could not be run."""
    IMAGE.build(cluster)
    cluster.call("load", IMAGE.reference)
    cluster.apply(_pod(), namespace=namespace)
    deadline = time.monotonic() + MINUTES * 60
    while (phase := cluster.get("pod", POD, namespace=namespace)["status"]["phase"]) in {
        "Pending",
        "Running",
    }:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the tests are not finished after {MINUTES} minutes")
        time.sleep(5)
    printed = cluster.kubectl("-n", namespace, "logs", POD)
    if phase != "Succeeded":
        raise RuntimeError(printed)
    return {
        test: (direct, through) for test, direct, through in map(json.loads, printed.splitlines())
    }


def differences(outcomes: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Return the tests that pass without a balancer and not with it, with that outcome."""
    return {
        test: through
        for test, (direct, through) in outcomes.items()
        if direct == "passed" != through
    }


def without_parameters(test: str) -> str:
    """Return the name of a test without its parameters, as in DIFFERENCES."""
    return test.partition("[")[0]


def failures(outcomes: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Return the tests that fail without a balancer too, with the failure's message."""
    return {
        test: direct
        for test, (direct, _) in outcomes.items()
        if direct not in {"passed", "skipped"}
    }


def _pod() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "tests",
                    "image": IMAGE.reference,
                    "imagePullPolicy": "IfNotPresent",
                    "args": list(_arguments()),
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        },
    }


def _arguments() -> Iterator[str]:
    yield from (f"--file={file}" for file in FILES_LEFT_OUT)
    yield from (f"--test={test}" for test in LEFT_OUT)
