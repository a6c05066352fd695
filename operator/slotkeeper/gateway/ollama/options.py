"""The options of a request, as llama-server's sampling parameters. Pure."""

from typing import Any

from slotkeeper.gateway.ollama.fields import Fields, invalid

_INTEGERS = {
    "num_predict": "max_tokens",
    "num_keep": "n_keep",
    "seed": "seed",
    "top_k": "top_k",
    "repeat_last_n": "repeat_last_n",
    "mirostat": "mirostat",
}
_NUMBERS = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "mirostat_tau",
    "mirostat_eta",
)


def sampling(options: dict[str, Any] | None) -> dict[str, Any]:
    """Return the sampling parameters that `options` set.

    Options of loading a model, such as num_ctx and num_gpu, are fields of the LlamaServer, and are
    ignored, as Ollama ignores unknown ones. Raises HttpError for a value of another type.
    """
    if not options:
        return {}
    fields = Fields(options, "options.")
    found: dict[str, Any] = {}
    for name, parameter in _INTEGERS.items():
        if (value := fields.integer(name)) is not None:
            found[parameter] = value
    for name in _NUMBERS:
        if (number := fields.number(name)) is not None:
            found[name] = number
    if "max_tokens" in found and found["max_tokens"] < 0:
        # -1: no limit; -2: until the context is full, which is the same here.
        found["max_tokens"] = -1
    if (stop := _stop(options.get("stop"))) is not None:
        found["stop"] = stop
    return found


def _stop(value: Any) -> list[str] | None:
    stop = [value] if isinstance(value, str) else value
    if stop is None:
        return None
    if not isinstance(stop, list) or not all(isinstance(each, str) for each in stop):
        raise invalid("options.stop must be a string or a list of strings")
    return stop
