"""Which server gets a request."""

import json
from typing import Any

import pytest
from typing_extensions import override

from fake_llama import FakeLlama
from raw_http import get, post
from running_gateway import run_gateway, server_manifest, status
from slotkeeper.gateway import routing

CHAT = "/v1/chat/completions"
LARGE = "x" * 200_000


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize(
    "content",
    [
        b'{"model":"two"}',
        b'{"messages":[{"role":"user","content":"hi"}],"model":"two"}',
        b'\xef\xbb\xbf {"mod\\u0065l" : "tw\\u006f" }',
        b'{"metadata":{"model":"one"},"model":"two"}',
        b'{"a":"\\"model\\":\\"one\\"","model":"two"}',
        b'{"a":1e999,"b":' + b"9" * 10_000 + b',"model":"two"}',
        body(prompt=LARGE, model="two"),
        body(model="two", prompt=LARGE),
        body(metadata={"model": "one"}, prompt=LARGE, model="two"),
        body(prompt=[LARGE, {"model": "one"}, '"model":"one"'], model="two"),
    ],
    ids=range(10),
)
async def test_the_field_model_decides_wherever_it_stands(content: bytes) -> None:
    async with FakeLlama() as one, FakeLlama() as two, run_gateway(one=one, two=two) as gateway:
        response = await gateway.request(post(CHAT, content))

        assert (response.status, len(one.calls), len(two.calls)) == (200, 0, 1)
        assert (two.calls[0].path, two.calls[0].body) == (CHAT, content)


async def test_the_path_comes_before_the_header_and_the_header_before_the_body() -> None:
    servers = FakeLlama(), FakeLlama(), FakeLlama()
    a, b, c = servers
    async with a, b, c, run_gateway(a=a, b=b, c=c) as gateway:
        content = body(model="c")
        await gateway.request(post(f"/models/a{CHAT}?x=1", content, "X-Model: b"))
        await gateway.request(post(CHAT, content, "X-Model: b"))
        await gateway.request(post(CHAT, content, "X-Model: "))

        assert [[call.path for call in each.calls] for each in servers] == [
            [f"{CHAT}?x=1"],
            [CHAT],
            [CHAT],
        ]
        assert [call.body for each in servers for call in each.calls] == [content] * 3
        assert "x-model" not in b.calls[0].headers


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/models/a/v1/chat/completions", ("a", "/v1/chat/completions")),
        ("/models/org/a:7b/v1/completions", ("org/a:7b", "/v1/completions")),
        ("/models/org%2Fa/slots", ("org/a", "/slots")),
        ("/models/a/v1/models", ("a", "/v1/models")),
        ("/models/a/v1/models/b", ("a", "/v1/models/b")),
        ("/models/v1/v1/embeddings", ("v1", "/v1/embeddings")),
        ("/models", None),
        ("/models/", None),
        ("/models/a", None),
        ("/models/a/load", None),
        ("/models//v1/completions", None),
        ("/v1/models/a", None),
    ],
)
def test_a_path_with_a_model_is_split(path: str, expected: tuple[str, str] | None) -> None:
    split = routing.prefixed_path(path.encode())

    assert (split and (split.model, split.path.decode())) == expected


def test_a_path_of_slashes_is_not_compared_at_each_of_them() -> None:
    class CountedPath(bytes):
        copies = 0

        @override
        def __getitem__(self, key: Any) -> Any:
            CountedPath.copies += 1
            return super().__getitem__(key)

    assert routing.prefixed_path(CountedPath(b"/models/" + b"a/" * 4_000)) is None
    assert CountedPath.copies == 0


async def test_the_name_of_a_model_is_the_servers_alias_or_else_its_name() -> None:
    async with FakeLlama() as a, FakeLlama() as b, run_gateway(a=a, b=b) as gateway:
        gateway.set_servers(server_manifest("a", alias="qwen/7b"), server_manifest("b"))
        for name in ("qwen/7b", "b"):
            assert (await gateway.request(post(CHAT, body(model=name)))).status == 200
        response = await gateway.request(post(CHAT, body(model="a")))

        assert (len(a.calls), len(b.calls)) == (1, 1)
        assert (response.status, response.error_code) == (404, "model_not_found")


async def test_an_alias_of_the_gateway_leads_to_its_model() -> None:
    spec = {"aliases": {"gpt-4o": "one", "two": "one", "gone": "missing"}}
    async with FakeLlama() as one, FakeLlama() as two, run_gateway(spec, one=one, two=two) as run:
        for name in ("gpt-4o", "two"):
            assert (await run.request(post(CHAT, body(model=name)))).status == 200
        assert (await run.request(post(CHAT, body(model="gone")))).status == 404
        assert (len(one.calls), len(two.calls)) == (2, 0)

        run.configure({"aliases": {"gpt-4o": "two"}})
        await run.request(post(CHAT, body(model="gpt-4o")))
        assert len(two.calls) == 1


@pytest.mark.parametrize("content", [b"{}", b'{"model":""}', b'{"model":null}', b""])
async def test_without_a_model_the_default_or_the_only_one_is_used(content: bytes) -> None:
    spec = {"defaultModel": "fast", "aliases": {"fast": "two"}}
    async with FakeLlama() as one, FakeLlama() as two, run_gateway(spec, one=one, two=two) as run:
        assert (await run.request(post(CHAT, content))).status == 200
        assert (len(one.calls), len(two.calls)) == (0, 1)

        run.configure({})
        response = await run.request(post(CHAT, content))
        assert (response.status, response.error_code) == (400, "model_required")
        assert "models: one, two" in response.body.decode()

        run.configure({"aliases": {"fast": "two"}})
        run.set_servers(server_manifest("two"))
        assert (await run.request(post(CHAT, content))).status == 200

        run.configure({"defaultModel": "missing"})
        assert (await run.request(post(CHAT, content))).error_code == "model_required"


async def test_an_unknown_model_is_rejected_with_the_list_which_is_bounded() -> None:
    async with FakeLlama() as llama, run_gateway(m0=llama) as gateway:
        response = await gateway.request(post(CHAT, body(model="x" * 1000)))
        error = json.loads(response.body)["error"]
        assert (response.status, error["code"]) == (404, "model_not_found")
        assert error["type"] == "not_found_error"
        assert error["message"] == f"the model '{'x' * 100}…' does not exist; models: m0"

        gateway.upstreams.update({f"m{number}": llama for number in range(100)})
        gateway.set_servers(*(server_manifest(f"m{number}") for number in range(100)))
        response = await gateway.request(post(CHAT, b"{}", "X-Model: \xff"))
        assert response.status == 404
        assert "m0, m1, m10" in response.body.decode()
        assert "and 80 more" in response.body.decode()

        gateway.set_servers()
        response = await gateway.request(post(CHAT, body(model="m0")))
        assert (response.status, b"there is no model" in response.body) == (404, True)
        assert llama.calls == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'{"model":"one","model":"one"}', "ambiguous_model"),
        (b'{"model":"one","mod\\u0065l":"two"}', "ambiguous_model"),
        (body(prompt=LARGE)[:-1] + b',"model":"one","model":"two"}', "ambiguous_model"),
        (b'{"model":1}', "invalid_model"),
        (b'{"model":["one"]}', "invalid_model"),
        (body(prompt=LARGE, model={"a": 1}), "invalid_model"),
        (b"hello", "invalid_json"),
        (b'["one"]', "invalid_json"),
        (b'{"model":"one"', "invalid_json"),
        (b'{"model":"\xff"}', "invalid_json"),
        (b"x" * 200_000, "invalid_json"),
        (b"[" * 10_000 + b"]" * 10_000, "nested_too_deeply"),
        (b'{"model":' + b"[" * 10_000, "nested_too_deeply"),
        (b'{"model":"one","a":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001, "nested_too_deeply"),
        (body(prompt=LARGE)[:-1] + b',"model":' + b"[" * 10_000, "nested_too_deeply"),
    ],
    ids=range(15),
)
async def test_a_body_that_names_no_single_model_is_rejected(content: bytes, code: str) -> None:
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        response = await gateway.request(post(CHAT, content))

        assert (response.status, response.error_code) == (400, code)
        assert [line["code"] for line in gateway.access_log()] == [code]
        assert llama.calls == []


async def test_a_body_is_not_read_if_the_path_or_the_header_names_the_model() -> None:
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        for request in (
            post(f"/models/one{CHAT}", b"no JSON"),
            post(CHAT, b"no JSON", "X-Model: one"),
        ):
            assert (await gateway.request(request)).status == 200
        assert [call.body for call in llama.calls] == [b"no JSON"] * 2


async def test_a_model_of_a_megabyte_is_not_found_without_repeating_it() -> None:
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        response = await gateway.request(post(CHAT, body(model="x" * 1_000_000)))

        assert (response.status, response.error_code) == (404, "model_not_found")
        assert len(response.body) < 500


async def test_several_headers_with_different_models_are_rejected() -> None:
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        same = await gateway.request(post(CHAT, b"{}", "X-Model: one", "X-Model: one"))
        different = await gateway.request(post(CHAT, b"{}", "X-Model: one", "x-model: two"))

        assert (same.status, different.status) == (200, 400)
        assert different.error_code == "ambiguous_model"


async def test_a_body_with_too_many_values_is_rejected() -> None:
    content = b'{"a":[' + b'"",' * 200_001 + b'""],"model":"one"}'
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        response = await gateway.request(post(CHAT, content))
        assert (response.status, response.error_code) == (413, "too_many_values")

        assert (await gateway.request(post(CHAT, content, "X-Model: one"))).status == 200


def form(*parts: tuple[str, bytes]) -> tuple[bytes, str]:
    lines = b"".join(
        b"--bound\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (head.encode(), content)
        for head, content in parts
    )
    return lines + b"--bound--\r\n", 'Content-Type: multipart/form-data; boundary="bound"'


AUDIO = ('name="file"; filename="a.wav"', b'\r\n--boun\r\nname="model"\r\n\r\none' * 20_000)
MODEL = ('name="model"', b"two")
TRANSCRIPTIONS = "/v1/audio/transcriptions"


@pytest.mark.parametrize(
    "parts", [(MODEL,), (MODEL, AUDIO), (AUDIO, ("name=model", b"two")), (AUDIO, AUDIO, MODEL)]
)
async def test_the_field_model_of_a_form_decides(parts: tuple[tuple[str, bytes], ...]) -> None:
    content, content_type = form(*parts)
    async with FakeLlama() as one, FakeLlama() as two, run_gateway(one=one, two=two) as gateway:
        response = await gateway.request(post(TRANSCRIPTIONS, content, content_type))

        assert (response.status, len(one.calls), len(two.calls)) == (200, 0, 1)
        assert two.calls[0].body == content


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ((MODEL, MODEL), "ambiguous_model"),
        ((AUDIO,), "model_required"),
        ((('name="models"', b"two"),), "model_required"),
        ((('filename="model"; name="file"', b"two"),), "model_required"),
        ((('name="model"', b""),), "model_required"),
        ((('name="model"', b"x" * 100_000),), "model_not_found"),
    ],
)
async def test_a_form_without_a_single_model_is_rejected(
    parts: tuple[tuple[str, bytes], ...], code: str
) -> None:
    content, content_type = form(*parts)
    async with FakeLlama() as one, FakeLlama() as two, run_gateway(one=one, two=two) as gateway:
        response = await gateway.request(post(TRANSCRIPTIONS, content, content_type))

        assert response.error_code == code


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"--bound",
        form(AUDIO, MODEL)[0][:-20],
        form(MODEL)[0].replace(b"--bound", b"--other"),
        form(MODEL)[0].replace(b"\r\n\r\n", b"\r\n"),
        b"--bound\r\n\r\n\r\n--bound" * 10_000,
    ],
    ids=range(6),
)
async def test_a_damaged_form_names_no_model(content: bytes) -> None:
    async with FakeLlama() as one, FakeLlama() as two, run_gateway(one=one, two=two) as gateway:
        request = post(TRANSCRIPTIONS, content, form()[1])
        assert (await gateway.request(request)).error_code == "model_required"


async def test_a_form_is_only_accepted_where_llama_server_reads_one() -> None:
    content, content_type = form(MODEL)
    async with FakeLlama() as two, run_gateway(two=two) as gateway:
        response = await gateway.request(post(CHAT, content, content_type))

        assert (response.status, response.error_code) == (415, "unsupported_encoding")


async def test_of_two_servers_with_one_name_the_older_serves_until_it_is_deleted() -> None:
    async with FakeLlama() as old, FakeLlama() as new, run_gateway(old=old, new=new) as gateway:
        older = server_manifest("old", alias="m", creationTimestamp="2025-01-01T00:00:00Z")
        newer = server_manifest("new", alias="m", creationTimestamp="2025-01-02T00:00:00Z")
        gateway.set_servers(newer, older)
        await gateway.request(post(CHAT, body(model="m")))
        assert (len(old.calls), len(new.calls)) == (1, 0)

        deleted = server_manifest("old", alias="m", deletionTimestamp="2025-02-01T00:00:00Z")
        gateway.set_servers(deleted, newer)
        await gateway.request(post(CHAT, body(model="m")))
        assert (len(old.calls), len(new.calls)) == (1, 1)


async def test_only_selected_servers_are_served() -> None:
    spec = {"serverSelector": {"matchLabels": {"team": "a"}}}
    async with FakeLlama() as llama, run_gateway(spec, one=llama, two=llama) as gateway:
        gateway.set_servers(
            server_manifest("one", labels={"team": "a"}), server_manifest("two", labels={})
        )
        assert [each["id"] for each in (await gateway.json("/v1/models"))["data"]] == ["one"]
        assert (await gateway.request(post(CHAT, body(model="two")))).status == 404

        gateway.configure({})
        assert (await gateway.request(post(CHAT, body(model="two")))).status == 200


async def test_paths_of_one_server_are_forwarded_with_its_name() -> None:
    async with FakeLlama() as one, FakeLlama() as two, run_gateway(one=one, two=two) as gateway:
        for request in (get("/models/one/slots"), get("/slots", "X-Model: one")):
            response = await gateway.request(request)
            assert (response.status, len(json.loads(response.body))) == (200, 1)
        response = await gateway.request(get("/slots"))

        assert (response.status, response.error_code) == (400, "model_required")
        assert (one.slots_polls, two.slots_polls) == (2, 0)


async def test_failed_and_waking_models_are_forwarded_too() -> None:
    # The balancer queues the request, and knows best what to respond.
    async with FakeLlama() as llama, run_gateway(one=llama) as gateway:
        for state in (
            status("False", "ModelNotFound"),
            status("True", "ScaledToZero"),
            status("False", "Suspended"),
        ):
            gateway.set_servers(server_manifest("one", state=state))
            assert (await gateway.request(post(CHAT, body(model="one")))).status == 200
