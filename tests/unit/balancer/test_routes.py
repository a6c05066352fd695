import json
from collections.abc import Iterator

import pytest

from balancer_harness import run_balancer
from fake_llama import FakeLlama
from raw_http import get, post
from slotkeeper.api.access_rules import AccessRules
from slotkeeper.edge.routes import PREFIX_CACHED, PROXIED, Route, route
from slotkeeper.wire.errors import HttpError

ADMINISTRATIVE = [
    ("POST", "/slots/0"),
    ("POST", "/slots/0?action=erase"),
    ("POST", "/slots/0?action=save"),
    ("POST", "/slots"),
    ("POST", "/props"),
    ("GET", "/lora-adapters"),
    ("POST", "/lora-adapters"),
    ("POST", "/models"),
    ("DELETE", "/models"),
    ("POST", "/models/load"),
    ("POST", "/models/unload"),
    ("GET", "/models/sse"),
    ("GET", "/tools"),
    ("POST", "/tools"),
    ("GET", "/cors-proxy?url=http://169.254.169.254/"),
    ("POST", "/cors-proxy"),
    ("POST", "/metrics"),
    ("POST", "/v1/chat/completions/control"),
    ("GET", "/v1/stream/c"),
    ("DELETE", "/v1/stream/c"),
    ("GET", "/v1/streams"),
    ("POST", "/predict"),
    ("GET", "/"),
    ("GET", "/index.html"),
]


def spellings(path: str) -> Iterator[str]:
    """Yield spellings that some other server may equate with `path`."""
    path, question, query = path.partition("?")
    tail = question + query
    first = path[1:2] or "."
    yield path + tail
    yield f"{path}/{tail}"
    yield f"/{path}{tail}"
    yield path.replace("/", "//") + tail
    yield path.replace("/", "/./") + tail
    yield f"/v1/..{path}{tail}"
    yield f"/completion/..{path}{tail}"
    yield f"/completion/..%2f{path[1:]}{tail}"
    yield f"/completion;{path}{tail}"
    yield f"/%{ord(first):02x}{path[2:]}{tail}"
    yield f"/%{ord(first):02X}{path[2:]}{tail}"
    yield "/%2f" + path[1:] + tail
    yield path.upper() + "/x" + tail
    yield path.title() + "%00" + tail
    yield f"{path}%20{tail}"
    yield f"{path}%3fx{tail}"
    yield f"\\{path}" if path == "/" else path.replace("/", "/\\", 1) + tail
    yield f"http://test{path}{tail}"
    yield f"http://test/{path}{tail}"
    yield f"HTTP://other:8080{path}/{tail}"
    yield f"{path}{tail}{'&' if tail else '?'}path=/completion"
    yield f"{path}#/completion"


@pytest.mark.parametrize(("method", "path"), ADMINISTRATIVE)
async def test_administrative_routes_reach_no_replica_in_any_spelling(
    method: str, path: str
) -> None:
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        polls = llama.slots_polls
        for spelling in spellings(path):
            for each in (method, "POST", "PUT"):
                response = await balancer.request(get(spelling, "Content-Length: 0", method=each))
                assert response.status in {400, 404, 405}, (each, spelling)
                assert "error" in json.loads(response.body)
        assert (llama.calls, llama.slots_polls) == ([], polls)


@pytest.mark.parametrize("path", sorted(PROXIED))
async def test_inference_routes_are_proxied_in_one_spelling_only(path: bytes) -> None:
    name = path.decode()
    async with FakeLlama() as llama, run_balancer(llama) as balancer:
        assert (await balancer.request(post(name))).status == 200
        assert (await balancer.request(post(f"http://test{name}?x=1"))).status == 200
        assert [call.path for call in llama.calls] == [name, f"{name}?x=1"]
        escaped = f"/%{path[1]:x}{name[2:]}"
        for spelling in (f"{name}/", f"/{name}", name.upper(), escaped):
            assert (await balancer.request(post(spelling))).status == 404
        for method in ("GET", "PUT", "DELETE", "PATCH"):
            assert (await balancer.request(get(name, method=method))).status == 405
        assert len(llama.calls) == 2


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("completion completions v1/completions chat/completions infill", Route.INFERENCE),
        ("v1/chat/completions responses v1/responses v1/messages", Route.INFERENCE),
        ("embedding embeddings v1/embeddings", Route.INFERENCE),
        ("rerank reranking v1/rerank v1/reranking", Route.INFERENCE),
        ("audio/transcriptions v1/audio/transcriptions", Route.INFERENCE),
        ("tokenize detokenize apply-template v1/messages/count_tokens", Route.PASSTHROUGH),
        ("chat/completions/input_tokens v1/chat/completions/input_tokens", Route.PASSTHROUGH),
        ("responses/input_tokens v1/responses/input_tokens", Route.PASSTHROUGH),
    ],
)
def test_every_inference_route_of_llama_server_is_proxied(names: str, expected: Route) -> None:
    for name in names.split():
        assert route(b"POST", f"/{name}".encode()) is expected


def test_routes_that_generate_text_use_the_prefix_cache() -> None:
    assert {
        b"/completion",
        b"/v1/chat/completions",
        b"/v1/responses",
        b"/v1/messages",
        b"/infill",
    } <= PREFIX_CACHED
    for path in (b"/v1/embeddings", b"/rerank", b"/v1/audio/transcriptions", b"/tokenize"):
        assert path not in PREFIX_CACHED


async def test_paths_may_be_disallowed() -> None:
    rules = AccessRules(allowed_paths=frozenset((b"/v1/chat/completions",)))
    async with FakeLlama() as llama, run_balancer(llama, rules=rules) as balancer:
        assert (await balancer.request(post("/v1/chat/completions"))).status == 200
        for method in ("POST", "GET", "OPTIONS"):
            response = await balancer.request(
                get("/completion", "Content-Length: 0", method=method)
            )
            error = json.loads(response.body)["error"]
            assert (response.status, error["code"]) == (404, "path_not_allowed")
            assert "/completion is not allowed" in error["message"]
        for path in ("/health", "/v1/models", "/slots", "/props"):
            assert (await balancer.request(get(path))).status == 200
        unknown = await balancer.request(post("/slots/0"))
        assert unknown.error_code == "not_found"
        assert len(llama.calls) == 1


def test_a_disallowed_path_is_404_for_every_method() -> None:
    with pytest.raises(HttpError, match="not allowed"):
        route(b"GET", b"/infill", frozenset())


@pytest.mark.parametrize(
    ("request_", "allowed"),
    [
        (get("/completion"), "POST, OPTIONS"),
        (get("/slots", method="DELETE"), "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_wrong_method_gets_the_allowed_ones(request_: bytes, allowed: str) -> None:
    async with run_balancer() as balancer:
        response = await balancer.request(request_)

    assert (response.status, response.headers["allow"]) == (405, allowed)
