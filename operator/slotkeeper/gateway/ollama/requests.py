"""Requests of Ollama's API as requests of OpenAI's. Pure.

Fields that a server cannot honor are rejected, except for those that only concern how a model is
loaded: the LlamaServer determines it.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from slotkeeper.gateway.ollama.body import Body
from slotkeeper.gateway.ollama.fields import Fields, invalid
from slotkeeper.gateway.ollama.messages import chat_messages, user_message
from slotkeeper.gateway.ollama.options import sampling

Json = dict[str, Any]

_LEVELS = frozenset(("low", "medium", "high"))


class Kind(Enum):
    """The format of a response."""

    CHAT = "a message"
    GENERATE = "text"
    EMBED = "several embeddings"
    EMBEDDINGS = "one embedding"


@dataclass(frozen=True)
class Translated:
    """A request as it is sent to the server."""

    kind: Kind
    path: bytes
    tree: Json
    stream: bool = False
    load: bool = False
    """The request only starts a replica: nothing is generated."""


def model_of(body: Body) -> str | None:
    """Return the model that a request names; None if it names none. Raises HttpError."""
    fields = Fields(body.tree)
    # In requests for /api/show older clients call it name.
    name = fields.text("model") or fields.text("name")
    return str(body.restored(name)) if name else None


def chat(body: Body, model: str) -> Translated:
    """Translate a request for /api/chat."""
    fields = Fields(body.tree)
    messages = fields.items("messages", dict, "objects") or []
    if not messages:
        return _load(Kind.CHAT, fields, model)
    tree = {"model": model, "messages": chat_messages(messages, body), **_common(fields)}
    if tools := fields.items("tools", dict, "objects"):
        tree["tools"] = tools
    return _chat_completion(Kind.CHAT, fields, tree)


def generate(body: Body, model: str) -> Translated:
    """Translate a request for /api/generate."""
    fields = Fields(body.tree)
    fields.reject("context", "send the whole conversation to /api/chat")
    fields.reject("template", "the model's own chat template is used; to use none, set raw")
    for name in ("width", "height", "steps"):
        fields.reject(name, "no images are generated")
    prompt = fields.text("prompt") or ""
    images = fields.items("images", str, "strings in base64") or []
    suffix = fields.text("suffix")
    if not (prompt or images or suffix):
        return _load(Kind.GENERATE, fields, model)
    system = fields.text("system")
    if suffix or fields.flag("raw"):
        for name in ("images", "system", "think", "logprobs"):
            fields.reject(name, "not with raw or suffix, for which no chat template is used")
        return _completion(fields, model, prompt, suffix)
    messages = [{"role": "system", "content": system}] if system else []
    messages.append(user_message(prompt, images, body))
    return _chat_completion(
        Kind.GENERATE, fields, {"model": model, "messages": messages, **_common(fields)}
    )


def embed(body: Body, model: str) -> Translated:
    """Translate a request for /api/embed."""
    fields = Fields(body.tree)
    fields.reject("dimensions", "the model determines them")
    value = fields.get("input")
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise invalid("input must be a string or a list of strings")
    return _embeddings(Kind.EMBED, texts, model)


def embeddings(body: Body, model: str) -> Translated:
    """Translate a request for /api/embeddings, which /api/embed replaces."""
    return _embeddings(Kind.EMBEDDINGS, [Fields(body.tree).text("prompt") or ""], model)


def _embeddings(kind: Kind, texts: list[str], model: str) -> Translated:
    if not texts:
        raise invalid("input must not be empty")
    tree = {"model": model, "input": texts, "encoding_format": "float"}
    return Translated(kind, b"/v1/embeddings", tree)


def _load(kind: Kind, fields: Fields, model: str) -> Translated:
    if fields.get("keep_alive") in (0, "0", "0s"):
        raise invalid(
            "a model cannot be unloaded by a request: the autoscaling of its LlamaServer decides"
        )
    # It waits for a replica like any other request, and costs next to nothing there.
    return Translated(kind, b"/tokenize", {"model": model, "content": ""}, load=True)


def _chat_completion(kind: Kind, fields: Fields, tree: Json) -> Translated:
    form = _format(fields)
    if form is not None:
        schema = {"name": "format", "schema": form}
        tree["response_format"] = (
            {"type": "json_schema", "json_schema": schema} if form else {"type": "json_object"}
        )
    think = fields.get("think")
    if isinstance(think, bool):
        tree["chat_template_kwargs"] = {"enable_thinking": think}
    elif isinstance(think, str) and think in _LEVELS:
        # The templates of models with levels read the second.
        tree["chat_template_kwargs"] = {"enable_thinking": True, "reasoning_effort": think}
    elif think:
        raise invalid("think must be true, false, low, medium or high")
    if fields.flag("logprobs"):
        tree["logprobs"] = True
        tree["top_logprobs"] = fields.integer("top_logprobs") or 0
    return Translated(kind, b"/v1/chat/completions", tree, bool(tree["stream"]))


def _completion(fields: Fields, model: str, prompt: str, suffix: str | None) -> Translated:
    tree = {"model": model, **_common(fields)}
    form = _format(fields)
    if form is not None:
        tree["json_schema"] = form or {"type": "object"}
    stream = bool(tree["stream"])
    if suffix:
        tree |= {"input_prefix": prompt, "input_suffix": suffix}
        if "max_tokens" in tree:
            tree["n_predict"] = tree.pop("max_tokens")
        return Translated(Kind.GENERATE, b"/infill", tree, stream)
    return Translated(Kind.GENERATE, b"/v1/completions", {**tree, "prompt": prompt}, stream)


def _common(fields: Fields) -> Json:
    stream = fields.flag("stream") is not False
    common = {"stream": stream, **sampling(fields.tree("options"))}
    if stream:
        common["stream_options"] = {"include_usage": True}
    return common


def _format(fields: Fields) -> Json | None:
    """Return the JSON schema of a response, {} for any JSON, None for text."""
    form = fields.get("format")
    if form is None or form == "":
        return None
    if form == "json":
        return {}
    if not isinstance(form, dict):
        raise invalid("format must be json, or an object with a JSON schema")
    return form
