"""The line that states why llama-server ended, in logs of llama-server b11669."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.llamacpp.log import LAST_LINES, ending

INCOMPLETE = """\
0.00.009.635 I srv    load_model: loading model '/models/model.gguf'
0.00.009.911 E llama_model_load: error loading model: tensor 'blk.0.ffn_up.weight' data is not \
within the file bounds, model is corrupted or incomplete
0.00.009.956 E llama_model_load_from_file_impl: failed to load model
0.00.009.984 E cmn  common_init_: failed to load model '/models/model.gguf'
0.00.010.521 E srv    load_model: failed to load model, '/models/model.gguf'
0.00.010.562 I srv    operator(): operator(): cleaning up before exit...
0.00.010.899 E srv  llama_server: exiting due to model loading error
"""

NOT_GGUF = """\
0.00.010.050 E gguf_init_from_reader: invalid magic characters: '???Z', expected 'GGUF'
0.00.010.159 E llama_model_load: error loading model: llama_model_loader: failed to load
0.00.010.192 E llama_model_load_from_file_impl: failed to load model
0.00.010.271 I srv    operator(): operator(): cleaning up before exit...
0.00.010.680 E srv  llama_server: exiting due to model loading error
"""

LORA = """\
0.00.031.020 I srv    load_model: loading model '/models/model.gguf'
0.00.039.208 E llama_adapter_lora_init_from_file_ptr: failed to apply lora adapter: expect \
general.type to be 'adapter', but got:
0.00.039.224 E cmn  common_init_: failed to load lora adapter '/models/adapter-0.gguf'
0.00.039.229 E srv    load_model: failed to create_context with model '/models/model.gguf'
0.00.039.717 E srv  llama_server: exiting due to model loading error
"""

BIND = """\
0.00.041.061 I cmn  common_param: common_params_print_info: verbosity = 3
0.00.041.228 W srv  llama_server: security: no API key is set and CORS allows all origins
0.00.041.287 E srv         start: couldn't bind HTTP server socket, hostname: ::, port: 8080
0.00.041.288 I srv    operator(): operator(): cleaning up before exit...
0.00.043.365 E srv  llama_server: exiting due to HTTP server error
"""

TEMPLATE = """\
error: the supplied chat template is not supported: {{ a

0.00.000.928 E common_chat_templates_init: error: parser: Parser Error: Expected }} (Got )
...{{ a...
   ^
0.00.000.940 E common_chat_verify_template: failed to apply template: std::exception
"""

VALUE = """\
error while handling argument "--ctx-size": stoi

usage:
-c,    --ctx-size N                     size of the prompt context (default: 0)
                                        (env: LLAMA_ARG_CTX_SIZE)


to show complete usage, run with -h
"""

GRAMMAR = """\
#16 0x00007f86f16340d7 in __libc_start_main () from /usr/lib/x86_64-linux-gnu/libc.so.6
#32 0x0000000000000000 in ?? ()
[Inferior 1 (process 18723) detached]
terminate called after throwing an instance of 'std::runtime_error'
  what():  failed to parse grammar
"""

MEMORY = """\
ggml_backend_cuda_buffer_type_alloc_buffer: allocating 15317.02 MiB on device 0: cudaMalloc \
failed: out of memory
0.00.913.000 E alloc_tensor_range: failed to allocate CUDA0 buffer of size 16061083648
0.00.913.100 E llama_model_load: error loading model: unable to allocate CUDA0 buffer
0.00.913.300 E srv  llama_server: exiting due to model loading error
"""

ASSERTION = """\
9.01.000.000 E srv    send_error: task id = 7, error: the request exceeds the context size
/build/common/sampling.cpp:312: GGML_ASSERT(false && "unknown trigger type") failed
/usr/lib/libggml-base.so.0(+0x184cb)[0x7f86f129c0f9]
/usr/lib/libggml-base.so.0(ggml_abort+0x15f)[0x7f86f129c1f9]
"""


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        pytest.param(
            INCOMPLETE,
            "llama_model_load: error loading model: tensor 'blk.0.ffn_up.weight' data is not "
            "within the file bounds, model is corrupted or incomplete",
            id="incomplete file",
        ),
        pytest.param(
            NOT_GGUF,
            "gguf_init_from_reader: invalid magic characters: '???Z', expected 'GGUF'",
            id="not GGUF",
        ),
        pytest.param(
            LORA,
            "llama_adapter_lora_init_from_file_ptr: failed to apply lora adapter: expect "
            "general.type to be 'adapter', but got:",
            id="not an adapter",
        ),
        pytest.param(
            BIND,
            "srv         start: couldn't bind HTTP server socket, hostname: ::, port: 8080",
            id="address in use",
        ),
        pytest.param(
            TEMPLATE,
            "error: the supplied chat template is not supported: {{ a",
            id="invalid template",
        ),
        pytest.param(
            VALUE, 'error while handling argument "--ctx-size": stoi', id="invalid value of a flag"
        ),
        pytest.param(
            "error: invalid argument: --foo\n", "error: invalid argument: --foo", id="unknown flag"
        ),
        pytest.param(GRAMMAR, "what():  failed to parse grammar", id="uncaught exception"),
        pytest.param(
            MEMORY,
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 15317.02 MiB on device 0: "
            "cudaMalloc failed: out of memory",
            id="GPU memory",
        ),
        pytest.param(
            ASSERTION.partition("\n")[2],
            '/build/common/sampling.cpp:312: GGML_ASSERT(false && "unknown trigger type") failed',
            id="failed assertion",
        ),
        pytest.param(
            "1.0.0.0 E srv first request\n1.0.0.1 E srv second request\n1.0.0.2 I srv idle\n",
            "srv second request",
            id="an end without a message, after errors of requests",
        ),
        pytest.param(
            "the image has no ggml-rpc-server on its PATH\n",
            "the image has no ggml-rpc-server on its PATH",
            id="another program",
        ),
        pytest.param("#1 0x0 in ?? ()\n[Inferior 1 (process 1) detached]\n", "", id="backtrace"),
        pytest.param("\n \n", "", id="nothing"),
    ],
)
def test_the_line_that_states_the_cause_is_found(log: str, expected: str) -> None:
    assert ending(log) == expected


@given(st.text())
def test_the_ending_is_made_of_lines(log: str) -> None:
    parts = ending(log.replace("/", "")).split(" / ")

    lines = [
        re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", line) for line in log.replace("/", "").splitlines()
    ]
    assert len(parts) <= LAST_LINES
    assert parts == [""] or all(any(part in line for line in lines) for part in parts)


def test_control_characters_do_not_reach_terminals() -> None:
    assert ending("0.00.000.001 E \x1b[31merror: red\x9b0m\n") == " [31merror: red 0m"
    assert ending("\x1b]0;title\x07\n") == " ]0;title "


def test_a_log_without_an_error_ends_with_its_last_lines() -> None:
    log = "a\n0.00.000.001 I b\n\nc\n#1 0x0000000000000000 in ?? ()\nd\nAborted\n"

    assert ending(log) == "b / c / d"
    assert ending("") == ""
