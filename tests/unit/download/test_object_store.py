"""Files of s3:// URLs from an S3 server that verifies each signature with botocore."""

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gguf_files import gguf, split_gguf
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.download.download import Environment, download
from slotkeeper.download.errors import DownloadError
from slotkeeper.download.files import File
from slotkeeper.download.main import main
from slotkeeper.download.sources.s3 import Credentials, Store
from slotkeeper.download.token import Token
from slotkeeper.download.transfer import new_client

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv/object-store/bin/python"
KEYS = ["model.gguf", "team/a+b=c~d@1/Model_v1.0.gguf"]
PUBLIC = "public.gguf"
SPLIT = [f"m-{number:05}-of-00002.gguf" for number in (1, 2)]
BODY = gguf({"a": 4096})
PARTS = split_gguf({"a": 1}, {"b": 1})

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="`make unit` installs the object store")


@dataclass
class Server:
    """A running object store."""

    port: int
    id: str
    secret: str
    temporary: dict[str, Any] = field(default_factory=dict)
    """Another access key: id, secret and session_token."""
    session_token: str | None = None

    @property
    def credentials(self) -> Credentials:
        """The access key."""
        hosts = frozenset({"127.0.0.1"})
        return Credentials(
            self.id, self.secret, hosts, lambda: datetime.now(UTC), self.session_token
        )

    @property
    def store(self) -> Store:
        """The store with the access key."""
        endpoint = f"http://127.0.0.1:{self.port}"
        return Store(endpoint, path_style=True, credentials=self.credentials)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("objects")
    contents = [*((key, BODY) for key in (*KEYS, PUBLIC)), *zip(SPLIT, PARTS, strict=True)]
    for key, body in contents:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(body)
    command = [PYTHON, ROOT / "tests/support/object_store.py", folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield Server(**json.loads(process.stdout.readline()))
        process.communicate()


@pytest.fixture
def environment(client: httpx.Client, server: Server) -> Environment:
    return Environment(
        client,
        clock=lambda: 0.0,
        sleep=lambda _: None,
        chance=lambda: 0.0,
        store=server.store,
    )


def failure(file: File, environment: Environment) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        download(file, environment)
    return caught.value


@pytest.mark.parametrize("key", KEYS)
def test_an_object_is_downloaded_with_a_signature(
    environment: Environment, tmp_path: Path, key: str
) -> None:
    sha256 = hashlib.sha256(BODY).hexdigest()

    record = download(File(f"s3://models/{key}", tmp_path / "m.gguf", sha256), environment)

    assert (tmp_path / "m.gguf").read_bytes() == BODY
    assert record.size == len(BODY)


def test_each_range_is_signed(environment: Environment, tmp_path: Path) -> None:
    file = File("s3://models/model.gguf", tmp_path / "m.gguf")
    download(file, environment)
    etag = '"' + hashlib.md5(BODY).hexdigest() + '"'
    record = json.loads((tmp_path / "m.gguf.json").read_text())
    (tmp_path / "m.gguf.json").unlink()
    (tmp_path / "m.gguf.part").write_bytes(BODY[:1000])
    (tmp_path / "m.gguf.part.json").write_text(
        json.dumps({"source": record["source"], "validator": etag, "total": len(BODY)})
    )
    sent: list[httpx.Request] = []
    environment.client.event_hooks["request"].append(sent.append)

    download(file, environment)

    assert [request.headers.get("range") for request in sent] == ["bytes=1000-"]
    assert (tmp_path / "m.gguf").read_bytes() == BODY


def test_a_split_model_is_downloaded(environment: Environment, tmp_path: Path) -> None:
    download(File(f"s3://models/{SPLIT[0]}", tmp_path / SPLIT[0]), environment)

    assert [(tmp_path / name).read_bytes() for name in SPLIT] == PARTS


@pytest.mark.parametrize("wrong", ["id", "secret"])
def test_another_key_is_rejected(
    environment: Environment, server: Server, tmp_path: Path, wrong: str
) -> None:
    other = Server(**{**asdict(server), wrong: "CANARY"})
    changed = replace(environment, store=other.store)

    error = failure(File("s3://models/model.gguf", tmp_path / "m.gguf"), changed)

    assert error.reason is Reason.MODEL_FORBIDDEN
    assert "CANARY" not in error.message
    assert error.message.endswith(
        ": the access key in spec.model.s3.secretRef is not accepted, or may not read the object"
    )


def test_a_temporary_key_needs_its_session_token(
    environment: Environment, server: Server, tmp_path: Path
) -> None:
    temporary = replace(server, **server.temporary)
    file = File("s3://models/model.gguf", tmp_path / "m.gguf")

    without = replace(temporary, session_token=None)
    missing = failure(file, replace(environment, store=without.store))
    other = replace(temporary, session_token="CANARY")
    wrong = failure(file, replace(environment, store=other.store))
    download(file, replace(environment, store=temporary.store))

    assert missing.reason is Reason.MODEL_FORBIDDEN
    assert "the session token in spec.model.s3.secretRef has expired" in wrong.message
    assert "CANARY" not in wrong.message
    assert (tmp_path / "m.gguf").read_bytes() == BODY


def test_a_public_object_needs_no_key(
    environment: Environment, server: Server, tmp_path: Path
) -> None:
    anonymous = replace(environment, store=replace(server.store, credentials=None))
    authorization = f"{server.store.url}/moto-api/reset-auth"
    # While moto checks signatures, it has no anonymous requests: now it checks access lists only.
    httpx.post(authorization, content="inf").raise_for_status()
    try:
        download(File(f"s3://models/{PUBLIC}", tmp_path / "m.gguf"), anonymous)
        error = failure(File("s3://models/model.gguf", tmp_path / "other.gguf"), anonymous)
    finally:
        httpx.post(authorization, content="0").raise_for_status()

    assert (tmp_path / "m.gguf").read_bytes() == BODY
    assert error.reason is Reason.MODEL_FORBIDDEN
    assert error.message.endswith(
        "403 Forbidden: set spec.model.s3.secretRef to a Secret with an access key"
    )


def test_a_missing_object_is_reported(environment: Environment, tmp_path: Path) -> None:
    error = failure(File("s3://models/other.gguf", tmp_path / "m.gguf"), environment)

    assert error.reason is Reason.MODEL_NOT_FOUND


def test_without_a_key_no_token_of_another_host_is_sent(
    environment: Environment, server: Server, tmp_path: Path
) -> None:
    sent: list[httpx.Request] = []
    token = Token("CANARY", frozenset({"huggingface.co"}))
    anonymous = replace(server.store, credentials=None)
    with new_client(token) as client:
        client.event_hooks["request"].append(sent.append)
        changed = replace(environment, client=client, store=anonymous)
        error = failure(File("s3://models/model.gguf", tmp_path / "m.gguf"), changed)

    assert error.reason is Reason.MODEL_FORBIDDEN
    assert "authorization" not in sent[0].headers


def test_the_command_reads_a_mounted_secret_and_logs_none_of_it(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = {"AWS_ACCESS_KEY_ID": server.id, "AWS_SECRET_ACCESS_KEY": f"{server.secret}\n"}
    for name, text in {**secret, "hosts": "127.0.0.1 minio.example.com"}.items():
        (tmp_path / name).write_text(text)
    target = tmp_path / "models/m.gguf"
    options = (
        *("--s3-endpoint", f"http://127.0.0.1:{server.port}", "--s3-credentials", str(tmp_path)),
        *("--model", "s3://models/model.gguf", "--to", str(target)),
    )

    assert main(options) == 0

    written = "".join(path.read_text(errors="replace") for path in target.parent.iterdir())
    assert server.secret not in caplog.text + written
