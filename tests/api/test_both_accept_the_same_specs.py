"""The API server and the operator accept the same specs: their rules have the same source."""

from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from apiserver import ApiServer
from llamaservers import raw_server
from rejections import (
    is_accepted_by_the_operator,
    is_rejected_by_the_operator_alone,
    rejection,
)

URL = "https://models.example.com/model.gguf"
PODS = {"type": "Pods", "value": 1, "periodSeconds": 60}


def mostly(usual: Any, unusual: Any) -> st.SearchStrategy[Any]:
    """Mostly usual values, because a spec with many invalid ones would never be accepted."""
    return st.integers(0, 19).flatmap(lambda chance: unusual if chance == 0 else usual)


quantities = mostly(
    st.sampled_from([1, "1", "1000m", "1.5", "2e0", "3"]),
    st.sampled_from([0, "500m", "1.5Gi", "2e3", "1n", "4Ki", "5.", -1, "-1", "x", "", "1 ", "1gi"]),
)
names = mostly(
    st.sampled_from(["cpu", "memory", "ephemeral-storage", "hugepages-2Mi", "example.com/card"]),
    st.sampled_from(["nvidia.com/gpu", "amd.com/gpu", "gpu", "", "a/b/c", "/a"]),
)
amounts = st.dictionaries(names, quantities, max_size=3)

sizes = mostly(
    st.sampled_from(["128Mi", "130M", "256Mi", "300Mi", "1Gi", 268435456]),
    st.sampled_from([0, 1, "1023Ki", "1Mi", "64Gi", "65Gi", "-1", "x", "1e9", "1.5Gi"]),
)

specs = st.fixed_dictionaries(
    {
        "model": st.fixed_dictionaries(
            {
                "url": mostly(
                    st.just(URL),
                    st.builds(
                        "{}{}".format,
                        st.sampled_from(["https://", "http://h", "https:/", "HTTPS://", "s3://h"]),
                        st.text("aé./?#@: \n-1[]%", max_size=8),
                    ),
                )
            },
            optional={
                "sha256": mostly(st.just("0aF9" * 16), st.text("0aFg", min_size=63, max_size=65)),
                "alias": mostly(st.just("org/a:7b"), st.text("aZ0-./:_@+, $\n", max_size=6)),
                "tokenSecretRef": st.fixed_dictionaries(
                    {"name": mostly(st.just("a.b-c"), st.text("aA.-_", max_size=4))},
                    optional={"key": mostly(st.just("HF_TOKEN"), st.text("aA.-_/ ", max_size=4))},
                ),
                "mmproj": st.fixed_dictionaries({"url": mostly(st.just(URL), st.just("s3://a"))}),
                "adapters": st.lists(
                    st.fixed_dictionaries(
                        {"url": mostly(st.just(URL), st.just("s3://a"))},
                        optional={
                            "scale": mostly(
                                st.sampled_from([0, 1, -0.5, 100]), st.sampled_from([-100.5, 101])
                            )
                        },
                    ),
                    max_size=2,
                ),
                "cache": st.one_of(
                    st.fixed_dictionaries({}, optional={"sizeLimit": sizes}),
                    st.fixed_dictionaries(
                        {"claimName": mostly(st.just("models"), st.sampled_from(["A", "prompts"]))},
                        optional={"sizeLimit": sizes},
                    ),
                ),
            },
        )
    },
    optional={
        "slots": mostly(st.integers(1, 256), st.integers(-1, 300)),
        "contextPerSlot": mostly(
            st.one_of(st.integers(256, 16_777_216), st.just("auto")),
            st.sampled_from([0, 255, 16_777_217, "4096", "", "AUTO"]),
        ),
        "gpu": st.fixed_dictionaries(
            {},
            optional={
                "count": mostly(st.integers(0, 128), st.integers(-1, 130)),
                "resourceName": mostly(
                    st.sampled_from(["nvidia.com/gpu", "amd.com/gpu"]),
                    st.text("a.-/_A", max_size=6),
                ),
                "computeArch": mostly(
                    st.sampled_from([7.5, 75, "7.5", "sm_86", 12.1]),
                    st.one_of(
                        st.from_regex(r"(sm_|compute_|)[0-9]{0,3}\.?[0-9]?", fullmatch=True),
                        st.integers(0, 1100),
                    ),
                ),
                "minMemory": mostly(
                    st.sampled_from(["1Mi", "16Gi", "1Ti", 2**24]),
                    st.sampled_from([0, "1023Ki", "2Ti", "x"]),
                ),
                "resourceClaims": st.lists(
                    st.fixed_dictionaries(
                        {"name": mostly(st.sampled_from(["a", "b"]), st.just("A"))},
                        optional={
                            "resourceClaimName": mostly(st.just("c"), st.just("C")),
                            "resourceClaimTemplateName": st.just("d.e"),
                            "request": mostly(st.just("a"), st.just("a.b")),
                        },
                    ),
                    max_size=2,
                ),
                "supplementalGroups": st.lists(
                    mostly(st.integers(1, 2**31 - 1), st.sampled_from([0, 2**31])), max_size=2
                ),
                "memory": mostly(st.sampled_from(["1Mi", "16Gi"]), st.sampled_from([0, "2Ti"])),
                "layers": mostly(
                    st.one_of(st.integers(0, 998), st.just("auto")),
                    st.sampled_from([-1, 999, "all", "8"]),
                ),
                "cpuMoeLayers": mostly(st.integers(1, 998), st.sampled_from([0, 999])),
                "mainGpu": mostly(st.integers(0, 2), st.sampled_from([-1, 127, 128])),
                "splitMode": mostly(
                    st.sampled_from(["none", "layer", "row", "tensor"]), st.just("x")
                ),
                "tensorSplit": st.lists(
                    mostly(st.sampled_from([0, 1, 2.5]), st.sampled_from([-0.5, 1_000_001])),
                    max_size=3,
                ),
            },
        ),
        "kvCacheType": mostly(st.sampled_from(["f16", "bf16", "q8_0", "iq4_nl"]), st.just("F16")),
        "flashAttention": mostly(st.sampled_from(["auto", "enabled", "disabled"]), st.just("on")),
        "contextCheckpoints": mostly(st.integers(0, 1024), st.sampled_from([-1, 1025])),
        "jinja": st.booleans(),
        "chatTemplate": mostly(
            st.sampled_from(["chatml", "{{ a }}", "{%- b %}"]),
            st.text("{}% $a\né", max_size=4),
        ),
        "chatTemplateKwargs": st.just({"effort": [1, None, {"a": "low"}]}),
        "reasoning": st.fixed_dictionaries(
            {},
            optional={
                "enabled": st.booleans(),
                "format": mostly(st.sampled_from(["auto", "deepseek"]), st.just("")),
                "budgetTokens": mostly(
                    st.integers(-1, 1_000_000), st.sampled_from([-2, 1_000_001])
                ),
            },
        ),
        "sampling": st.fixed_dictionaries(
            {},
            optional={
                "temperature": mostly(st.sampled_from([0, 0.7, 10]), st.sampled_from([-1, 10.5])),
                "topK": mostly(st.integers(0, 1_000_000), st.sampled_from([-1, 1_000_001])),
                "repeatPenalty": mostly(
                    st.sampled_from([0.01, 1]), st.sampled_from([0, 0.001, 11])
                ),
                "minP": mostly(st.sampled_from([0, 0.05, 1]), st.sampled_from([-0.1, 2, "1"])),
                "seed": mostly(st.integers(0, 2**32 - 2), st.sampled_from([-1, 2**32 - 1])),
            },
        ),
        "speculative": st.fixed_dictionaries(
            {},
            optional={
                "type": mostly(st.sampled_from(["ngram-mod", "draft-simple"]), st.just("mtp")),
                "draft": st.fixed_dictionaries(
                    {"url": mostly(st.just(URL), st.sampled_from(["http://a/b", "s3://a"]))},
                    optional={"gpuLayers": mostly(st.just(9), st.sampled_from([-1, 999]))},
                ),
                "maxTokens": mostly(st.integers(1, 1024), st.sampled_from([0, 1025])),
                "minProbability": mostly(st.sampled_from([0, 0.5]), st.sampled_from([-1, 2])),
            },
        ),
        "embeddings": st.fixed_dictionaries(
            {}, optional={"pooling": mostly(st.sampled_from(["mean", "rank"]), st.just("sum"))}
        ),
        "extraArgs": st.lists(
            mostly(
                st.sampled_from(["--mirostat", "-1", "", "-ub", "a=b", "--batch_size"]),
                st.one_of(
                    st.sampled_from(["-c", "--no_slots", "--fit=on", "--a=", "-a b", "--a\n"]),
                    st.text("-a_= \t\n\v\u00a0é", max_size=6),
                ),
            ),
            max_size=4,
        ),
        "resources": st.fixed_dictionaries({}, optional={"requests": amounts, "limits": amounts}),
        "workers": st.fixed_dictionaries(
            {"count": mostly(st.integers(1, 2), st.sampled_from([0, 17]))},
            optional={
                "resources": st.fixed_dictionaries(
                    {}, optional={"requests": amounts, "limits": amounts}
                )
            },
        ),
        "balancer": st.fixed_dictionaries(
            {},
            optional={
                "replicas": mostly(st.integers(1, 5), st.integers(-1, 7)),
                "maxQueuedBytes": sizes,
                "maxBodyBytes": sizes,
                "heartbeatSeconds": mostly(st.integers(1, 300), st.sampled_from([0, 301])),
                "allowedPaths": st.lists(
                    mostly(st.sampled_from(["/infill", "/v1/messages", "/rerank"]), st.just("/a")),
                    max_size=2,
                ),
                "apiKeys": st.fixed_dictionaries(
                    {"secretName": mostly(st.just("a.b-c"), st.text("aA.-_", max_size=4))},
                    optional={
                        "maxPriorities": st.dictionaries(
                            mostly(st.just("web"), st.text("aA.-_= \n", max_size=4)),
                            mostly(st.integers(0, 1000), st.sampled_from([-1, 1001])),
                            max_size=2,
                        )
                    },
                ),
                "resources": st.fixed_dictionaries(
                    {}, optional={"limits": st.dictionaries(st.just("memory"), sizes, max_size=1)}
                ),
            },
        ),
        "promptCache": st.fixed_dictionaries(
            {},
            optional={
                "claimName": st.sampled_from(["prompts", "models"]),
                "node": mostly(st.just(False), st.just(True)),
                "emptyDir": mostly(st.just(False), st.just(True)),
                "sizeLimit": sizes,
                "minTokens": mostly(st.integers(1, 9999), st.sampled_from([0, 16_777_217])),
            },
        ),
        "prime": st.fixed_dictionaries(
            {},
            optional={
                "prompts": st.lists(
                    mostly(
                        st.fixed_dictionaries(
                            {"text": st.sampled_from(["a", "é" * 16_384, "a" * 16_385])}
                        ),
                        st.sampled_from([{}, {"text": ""}, {"text": "a", "chat": "{}"}]),
                    ),
                    max_size=3,
                ),
                "configMapName": st.just("beginnings"),
                "learned": st.booleans(),
                "maxSeconds": mostly(st.integers(1, 600), st.sampled_from([0, 601])),
            },
        ),
        "image": mostly(st.just("a"), st.sampled_from(["", "a" * 1024, "a" * 1025])),
        "replicas": mostly(st.integers(0, 1000), st.sampled_from([-1, 1001])),
        "autoscaling": st.fixed_dictionaries(
            {"maxReplicas": mostly(st.integers(3, 9), st.integers(-1, 1001))},
            optional={
                "minReplicas": mostly(st.integers(0, 3), st.integers(-1, 9)),
                "targetSlotUtilization": mostly(st.integers(1, 100), st.integers(-1, 102)),
                "idleSeconds": mostly(st.integers(1, 9), st.just(0)),
                "schedules": st.lists(
                    st.fixed_dictionaries(
                        {
                            "cron": mostly(
                                st.just("5 */2 1,15-20 jan *"),
                                st.sampled_from(["61 * * * *", "0 8 * * sun-sat", "9-8 8 31 2 *"]),
                            )
                        },
                        optional={
                            "timeZone": mostly(st.just("Asia/Tokyo"), st.just("Local")),
                            "minReplicas": mostly(st.integers(0, 3), st.integers(-1, 9)),
                            "maxReplicas": mostly(st.integers(3, 9), st.integers(-1, 9)),
                        },
                    ),
                    max_size=2,
                ),
                "behavior": st.fixed_dictionaries(
                    {},
                    optional={
                        "scaleUp": st.fixed_dictionaries(
                            {},
                            optional={
                                "selectPolicy": st.sampled_from(["Min", "Disabled"]),
                                "policies": mostly(st.just([PODS]), st.just([])),
                            },
                        )
                    },
                ),
            },
        ),
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs)
def test_both_accept_the_same_specs(api: ApiServer, spec: dict[str, Any]) -> None:
    raw = raw_server(**spec)
    assume(not is_rejected_by_the_operator_alone(raw))

    assert (rejection(api, raw) is None) == is_accepted_by_the_operator(raw)
