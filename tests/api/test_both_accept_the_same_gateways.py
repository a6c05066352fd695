"""The API server and the operator accept the same gateways: their rules have the same source."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apiserver import ApiServer
from llamagateways import raw_gateway
from rejections import is_accepted_by_the_operator, rejection


def mostly(usual: Any, unusual: Any) -> st.SearchStrategy[Any]:
    """Mostly usual values, because a spec with many invalid ones would never be accepted."""
    return st.integers(0, 19).flatmap(lambda chance: unusual if chance == 0 else usual)


models = mostly(
    st.sampled_from(["qwen", "org/a:7b", "gpt-4o"]), st.text("aZ0-./:_@+, $\n", max_size=6)
)
keys = mostly(st.sampled_from(["alice", "batch_1"]), st.text("aA.-_= \n", max_size=4))
sizes = mostly(
    st.sampled_from(["1Mi", "32Mi", "64M", 33554432, "272Mi", "1Gi"]),
    st.sampled_from([0, 1, "1023Ki", "64Gi", "65Gi", "-1", "x", "1e9", "1Pi", "1.5Pi"]),
)
claim_sizes = mostly(
    st.sampled_from(["100Mi", "20Gi", "1.5Ti", 1073741824]),
    st.sampled_from([0, "99Mi", "65Ti", "x", "-1Gi"]),
)
labels = st.dictionaries(
    mostly(st.sampled_from(["team", "example.com/a"]), st.text("aA./-_ \n", max_size=4)),
    mostly(st.sampled_from(["a", ""]), st.text("aA.-_ ", max_size=4)),
    max_size=2,
)
limits = st.fixed_dictionaries(
    {},
    optional={
        "requestsPerMinute": mostly(st.integers(1, 1000), st.integers(-1, 0)),
        "tokensPerMinute": mostly(st.integers(1, 10**9), st.sampled_from([0, 10**9 + 1])),
        "maxRunningRequests": mostly(st.integers(1, 10_000), st.sampled_from([0, 10_001])),
    },
)
origins = mostly(
    st.sampled_from(["https://a.example", "http://[::1]:8080"]),
    st.sampled_from(["*", "https://a/", "ftp://a", "", "https://"]),
)

refs = st.fixed_dictionaries(
    {"name": mostly(st.just("a.b-c"), st.text("aA.-_", max_size=4))},
    optional={"key": mostly(st.just("token"), st.sampled_from(["", "hosts", "..", "a b"]))},
)
backends = st.fixed_dictionaries(
    {
        "name": mostly(st.sampled_from(["a", "b-1", "c"]), st.text("aA.-_", max_size=4)),
        "url": mostly(
            st.sampled_from(
                [
                    "https://a.example/v1",
                    "http://a.ns.svc:8000/v1",
                    "https://[::1]/",
                    "http://a/v1/",
                ]
            ),
            st.sampled_from(
                ["https://a", "http://a@b/v1", "http://a:0/v1", "http://a:65535/v1", "https://a/?b"]
            ),
        ),
        "models": st.lists(
            st.fixed_dictionaries(
                {"name": models}, optional={"upstreamName": st.text("a/ é", max_size=3)}
            ),
            max_size=3,
        ),
    },
    optional={
        "secretRef": refs,
        "caSecretRef": refs,
        "firstByteSeconds": mostly(st.integers(1, 86_400), st.sampled_from([0, 86_401])),
    },
)

specs = st.fixed_dictionaries(
    {},
    optional={
        "serverSelector": st.fixed_dictionaries(
            {},
            optional={
                "matchLabels": labels,
                "matchExpressions": st.lists(
                    st.fixed_dictionaries(
                        {
                            "key": mostly(st.just("team"), st.just("")),
                            "operator": mostly(
                                st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist"]),
                                st.just("Equals"),
                            ),
                        },
                        optional={"values": st.lists(st.sampled_from(["a", "b"]), max_size=2)},
                    ),
                    max_size=2,
                ),
            },
        ),
        "aliases": st.dictionaries(models, models, max_size=3),
        "defaultModel": models,
        "externalBackends": st.lists(backends, max_size=3),
        "shadow": st.lists(
            st.fixed_dictionaries(
                {"model": models, "to": models, "percent": mostly(st.just(5), st.just(101))}
            ),
            max_size=2,
        ),
        "fallbacks": st.lists(
            st.fixed_dictionaries(
                {"model": models, "to": st.lists(models, max_size=2)},
                optional={
                    "when": st.lists(
                        mostly(st.sampled_from(["Full", "Waking"]), st.just("full")), max_size=2
                    )
                },
            ),
            max_size=2,
        ),
        "routes": st.lists(
            st.fixed_dictionaries(
                {
                    "name": models,
                    "targets": st.lists(
                        st.fixed_dictionaries({"model": models, "weight": st.integers(0, 3)}),
                        max_size=3,
                    ),
                }
            ),
            max_size=2,
        ),
        "tls": st.fixed_dictionaries(
            {"secretName": mostly(st.just("a.b-c"), st.text("aA.-_", max_size=4))}
        ),
        "apiKeys": st.fixed_dictionaries(
            {
                "secretRef": st.fixed_dictionaries(
                    {"name": mostly(st.just("a.b-c"), st.text("aA.-_", max_size=4))}
                )
            },
            optional={
                "models": st.dictionaries(keys, st.lists(models, max_size=2), max_size=2),
                "maxPriorities": st.dictionaries(
                    keys, mostly(st.integers(0, 1000), st.sampled_from([-1, 1001])), max_size=2
                ),
                "limits": limits,
                "limitsByKey": st.dictionaries(keys, limits, max_size=2),
            },
        ),
        "cors": st.fixed_dictionaries({}, optional={"allowedOrigins": st.lists(origins)}),
        "timeouts": st.fixed_dictionaries(
            {},
            optional={
                name: mostly(st.integers(1, 86_400), st.sampled_from([0, 86_401]))
                for name in ("connectSeconds", "firstByteSeconds", "idleSeconds")
            },
        ),
        "maxBodyBytes": sizes,
        "batches": st.fixed_dictionaries(
            {
                "storage": st.fixed_dictionaries(
                    {},
                    optional={
                        "claimName": mostly(st.just("mine"), st.just("_")),
                        "size": claim_sizes,
                        "storageClassName": mostly(st.just("fast"), st.just("")),
                    },
                )
            },
            optional={
                "maxFileBytes": sizes,
                "maxStorageBytes": claim_sizes,
                "retentionDays": mostly(st.integers(1, 365), st.sampled_from([0, 366])),
                "concurrency": mostly(st.integers(1, 256), st.sampled_from([0, 257])),
            },
        ),
        "budget": st.fixed_dictionaries(
            {},
            optional={
                "gpus": mostly(st.integers(1, 9), st.just(0)),
                "memory": sizes,
                "maxLoadedModels": mostly(st.integers(1, 1000), st.sampled_from([0, 1001])),
                "minimumResidencySeconds": mostly(st.integers(0, 9), st.just(-1)),
            },
        ),
        "replicas": mostly(st.integers(1, 20), st.integers(-1, 22)),
        "service": st.fixed_dictionaries(
            {},
            optional={
                "type": mostly(st.sampled_from(["NodePort", "LoadBalancer"]), st.just("None")),
                "annotations": labels,
            },
        ),
        "resources": st.fixed_dictionaries(
            {}, optional={"limits": st.dictionaries(st.just("memory"), sizes, max_size=1)}
        ),
        "imagePullSecrets": st.lists(
            st.fixed_dictionaries({"name": mostly(st.sampled_from(["a", "b"]), st.just("_"))}),
            max_size=2,
        ),
    },
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(specs)
def test_both_accept_the_same_gateways(api: ApiServer, spec: dict[str, Any]) -> None:
    raw = raw_gateway(**spec)

    assert (rejection(api, raw) is None) == is_accepted_by_the_operator(raw)
