"""Values of spec.model that are rejected."""

from typing import Any

import pytest

from apiserver import ApiServer
from rejections import assert_rejected

URL = "https://models.example.com/model.gguf"
SPLIT = "https://models.example.com/model-00001-of-00002.gguf?download=true"
HEX = "ab" * 32

ROWS: list[tuple[dict[str, Any], str, str]] = [
    (
        {"url": "ftp://models.example.com/model.gguf"},
        "url",
        "must start with http:// or https:// and a host, such as https://example.com/model.gguf",
    ),
    ({"url": "model.gguf"}, "url", "must start with http:// or https://"),
    ({"url": ""}, "url", "must start with http:// or https://"),
    ({"url": "https:///a"}, "url", "and a host"),
    ({"url": "https://h/a b"}, "url", "encode a space as %20"),
    ({"url": "https://h/a\n"}, "url", "must be printable ASCII"),
    ({"url": "https://hé/a"}, "url", "must be printable ASCII"),
    ({"url": "https://me:secret@h/a"}, "url", "must not contain a user name or password"),
    ({"url": f"https://h/{'a' * 2048}"}, "url", "may not be more than 2048"),
    ({"sha256": "abc"}, "sha256", "must be 64 hexadecimal digits, as printed by `sha256sum FILE`"),
    ({"sha256": "g" * 64}, "sha256", "must be 64 hexadecimal digits"),
    ({"tokenSecretRef": {}}, "tokenSecretRef.name", "Required value"),
    (
        {"tokenSecretRef": {"name": "Hugging Face"}},
        "tokenSecretRef.name",
        "must be the name of an object",
    ),
    (
        {"tokenSecretRef": {"name": "a", "key": "a/b"}},
        "tokenSecretRef.key",
        "must be the name of an entry of the Secret",
    ),
    (
        {"tokenSecretRef": {"name": "a", "key": ""}},
        "tokenSecretRef.key",
        "must be the name of an entry",
    ),
    ({"tokenSecretRef": {"name": "a", "key": "hosts"}}, "tokenSecretRef.key", "must not be hosts"),
    *(
        ({"url": f"https://h/m-{part}.gguf{end}"}, "url", "must be the first file of a split model")
        for part, end in (
            ("00002-of-00003", ""),
            ("00000-of-00003", "?download=true"),
            ("00001-of-00000", ""),
            ("00001-of-01000", "#a"),
        )
    ),
    (
        {"adapters": [{"url": "https://h/m-00001-of-00002.gguf"}]},
        "adapters[0].url",
        "must not be one file of several",
    ),
    (
        {"mmproj": {"url": "https://h/m-00001-of-00002.gguf"}},
        "mmproj.url",
        "must not be one file of several",
    ),
    ({"url": SPLIT, "sha256": HEX}, "", "must have partsSha256 instead of sha256"),
    (
        {"url": SPLIT, "partsSha256": [HEX]},
        "",
        "must have one SHA-256 in partsSha256 for each file",
    ),
    ({"partsSha256": [HEX]}, "", "must have one SHA-256 in partsSha256 for each file"),
    ({"url": SPLIT, "partsSha256": [HEX, "a"]}, "partsSha256[1]", "must be 64 hexadecimal digits"),
    ({"url": SPLIT, "partsSha256": []}, "partsSha256", "should have at least 1 items"),
    *(
        (files | {"tokenSecretRef": {"name": "a"} | allowed}, "", "must have only https:// URLs")
        for files in (
            {"url": "http://h.example/m.gguf"},
            {"mmproj": {"url": "http://h.example/m.gguf"}},
            {"adapters": [{"url": URL}, {"url": "http://h.example/m.gguf"}]},
            {"url": "http://models/m.gguf"},
            {"url": "http://models.default/m.gguf"},
            {"url": "http://a.svc.example/m.gguf"},
            {"url": "http://a.example?.svc"},
            {"url": "http://10.0.0.1/m.gguf"},
        )
        for allowed in ({}, {"allowHttp": True})
    ),
    (
        {"url": "http://models.default.svc/m.gguf", "tokenSecretRef": {"name": "a"}},
        "",
        "set tokenSecretRef.allowHttp",
    ),
    ({"cache": {"verify": "Never"}}, "cache.verify", "Unsupported value"),
    ({"download": {"maxFileSize": "1Ki"}}, "download.maxFileSize", "must be from 1Mi to 16Ti"),
    (
        {"download": {"httpsProxy": "http://me:secret@proxy:3128"}},
        "download.httpsProxy",
        "must be the URL of a proxy without user name and password",
    ),
    ({"download": {"httpProxy": "proxy:3128"}}, "download.httpProxy", "must be the URL of a proxy"),
    ({"download": {"noProxy": ["10.0.0.0/8"]}}, "download.noProxy[0]", "must be a host name"),
    (
        {"download": {"caConfigMapRef": {"name": "a", "key": "a/b"}}},
        "download.caConfigMapRef.key",
        "must be the name of an entry of the ConfigMap",
    ),
    (
        {"alias": "a,b"},
        "alias",
        "must start with a letter or digit, and contain only letters, digits",
    ),
    ({"alias": "$(HOME)"}, "alias", "must start with a letter or digit"),
    ({"alias": ""}, "alias", "must start with a letter or digit"),
    ({"alias": "a" * 129}, "alias", "may not be more than 128"),
    ({"mmproj": {}}, "mmproj.url", "Required value"),
    ({"url": "file:///etc/passwd"}, "url", "must start with http:// or https://"),
    *(
        ({"url": url}, "url", "must be pvc://CLAIM/PATH with the name of a PersistentVolumeClaim")
        for url in (
            "pvc://models",
            "pvc://models/",
            "pvc:///a.gguf",
            "pvc://Models/a.gguf",
            "pvc://models-/a.gguf",
            "pvc://models//a.gguf",
            "pvc://models/a,b.gguf",
            "pvc://models/a:b.gguf",
            "pvc://models/%2e%2e/a.gguf",
            "pvc://models/$(HOME)/a.gguf",
            "pvc://models/a.gguf?a",
            "image://models/a.gguf",
            "image:///",
            "image:////a.gguf",
        )
    ),
    *(
        ({"url": url}, "url", "must be hf://ORG/REPOSITORY/FILE.gguf or hf://ORG/REPOSITORY:QUANTI")
        for url in (
            "hf://org",
            "hf://org/repo",
            "hf://org/repo/model.safetensors",
            "hf://org/repo/a.gguf@",
            "hf://org/repo/a.gguf@a@b",
            "hf://org/repo:",
            "hf://org/repo:Q4_K_M/a.gguf",
            "hf://org/repo/a%20b.gguf",
            "hf://org/repo/a.gguf?download=true",
            "hf://user:password@org/repo/a.gguf",
        )
    ),
    (
        {"url": "hf://org/repo/m-00002-of-00003.gguf@v1"},
        "url",
        "must be the first file of a split model",
    ),
    ({"url": "hf://org/repo/m-00001-of-00002.gguf@v1", "sha256": HEX}, "", "must have partsSha256"),
    (
        {
            "url": "hf://org/repo:Q4_K_M",
            "tokenSecretRef": {"name": "a"},
            "download": {"hubEndpoint": "http://hub.example.com"},
        },
        "",
        "must have only https:// URLs",
    ),
    (
        {"download": {"hubEndpoint": "https://me:secret@hub.example.com"}},
        "download.hubEndpoint",
        "must be a URL without user name, password and query",
    ),
    *(
        ({"adapters": [{"url": url}]}, "adapters[0].url", "must not contain '/./' or '/../'")
        for url in (
            "hf://org/repo/../a.gguf",
            "hf://org/repo:Q4_K_M@a/../b",
            "s3://models/../a.gguf",
            "pvc://models/../a.gguf",
            "pvc://models/a/..",
            "pvc://models/./a.gguf",
            "image:///../a.gguf",
            "image:///a/./b.gguf",
        )
    ),
    ({"url": "image:///a.gguf", "sha256": HEX}, "", "must not have sha256 with image://"),
    (
        {"url": "image:///a-00001-of-00001.gguf", "partsSha256": [HEX]},
        "",
        "must not have partsSha256 with image://",
    ),
    (
        {"mmproj": {"url": "image:///a.gguf", "sha256": HEX}},
        "mmproj",
        "must not have sha256 with image://",
    ),
    ({"mmproj": {"url": "ftp://a/b"}}, "mmproj.url", "must start with http:// or https://"),
    *(
        ({"url": url}, "url", "must be s3://BUCKET/KEY")
        for url in (
            "s3://models",
            "s3://models/",
            "s3://Models/a.gguf",
            "s3://me:secret@models/a.gguf",
            "s3://models/a.gguf?versionId=1",
            "s3://models/a%20b.gguf",
        )
    ),
    *(
        ({"url": url}, "url", "must be oci://REGISTRY/REPOSITORY:TAG")
        for url in (
            "oci://registry.example.com",
            "oci://registry.example.com/",
            "oci://registry.example.com/Models:v1",
            "oci://registry.example.com/models:",
            "oci://registry.example.com/models@sha256:abc",
            "oci://registry.example.com/a/../b:v1",
            "oci://registry.example.com/a:v1/b?c",
            "oci://registry.example.com/a:v1/b:c",
            "oci://registry.example.com/a:v1//b",
            "oci://registry.example.com/a:v1/",
            "oci://me:secret@registry.example.com/a:v1",
        )
    ),
    *(
        ({"s3": {"endpoint": url}}, "s3.endpoint", "must be the URL of an object store")
        for url in ("minio:9000", "https://me:secret@minio", "https://minio/path", "s3://minio")
    ),
    *(
        (
            {"url": f"oci://{registry}/a:v1", "oci": {"plainHttp": True}},
            "",
            "must have an oci:// URL of a registry in the cluster with oci.plainHttp",
        )
        for registry in ("registry.example.com", "registry.ai.svc.example.com", "svc", "ai:5000")
    ),
    ({"s3": {"region": "Frankfurt"}}, "s3.region", "must be the name of a region"),
    ({"s3": {"secretRef": {}}}, "s3.secretRef.name", "Required value"),
    (
        {"s3": {"endpoint": "http://minio.example.com", "secretRef": {"name": "a"}}},
        "s3",
        "must have an https:// endpoint with secretRef",
    ),
    ({"mmproj": {"url": URL, "sha256": "a"}}, "mmproj.sha256", "must be 64 hexadecimal"),
    ({"adapters": URL}, "adapters", "must be of type array"),
    ({"adapters": [{"url": URL}] * 17}, "adapters", "must have at most 16 items"),
    ({"adapters": [{"scale": 1}]}, "adapters[0].url", "Required value"),
    (
        {"adapters": [{"url": URL}, {"url": "https://a:b@h/"}]},
        "adapters[1].url",
        "must not contain a user name or password",
    ),
    ({"adapters": [{"url": URL, "scale": 101}]}, "adapters[0].scale", "equal to 100"),
    ({"adapters": [{"url": URL, "scale": "1"}]}, "adapters[0].scale", "of type number"),
    ({"cache": {"claimName": "My Models"}}, "cache.claimName", "must be the name of an object"),
    ({"cache": {"sizeLimit": "40 GB"}}, "cache.sizeLimit", "must be a quantity such as"),
    ({"cache": {"sizeLimit": "1Ki"}}, "cache.sizeLimit", "must be from 1Mi to 16Ti"),
    ({"cache": {"claimName": "models", "sizeLimit": "40Gi"}}, "cache", "a claim has its own size"),
    ({"prefetch": True}, "", "must not have prefetch: true without cache.claimName or cache.node"),
    ({"prefetch": True, "cache": {"node": False}}, "", "must not have prefetch: true without"),
    ({"prefetch": "yes"}, "prefetch", "must be of type boolean"),
    ({"cache": {"node": True, "claimName": "models"}}, "cache", "must not be set with node"),
    ({"cache": {"node": True, "sizeLimit": "40Gi"}}, "cache", "must not be set with node"),
]


@pytest.mark.parametrize(("spec", "field", "message"), ROWS)
def test_an_invalid_model_is_rejected(
    api: ApiServer, spec: dict[str, Any], field: str, message: str
) -> None:
    assert_rejected(
        api, {"model": {"url": URL, **spec}}, f"spec.model.{field}".rstrip("."), message
    )
