"""Which model gets a place in the budget, which makes room, and why."""

from dataclasses import replace

import pytest

from slotkeeper.scaling.budget.decision import BudgetPlan, BudgetReason, Memory
from slotkeeper.scaling.budget.observation import Budget, Model
from slotkeeper.scaling.budget.planner import GRANT_SECONDS, plan
from slotkeeper.scaling.budget.resources import Resources, limits

ONE = Budget(limits(gpus=1))
TWO = Budget(limits(gpus=2))
GPU = Resources(gpus=1)


def idle(name: str, *, used: float = 0.0, load: float = 60.0, **fields: object) -> Model:
    """A loaded model without requests, with the desired replica that idleSeconds keeps."""
    model = Model(name, GPU, desired=1, ready=1, loaded_at=-500.0, used_at=used, load_seconds=load)
    return replace(model, **fields)  # type: ignore[arg-type]


def busy(name: str, **fields: object) -> Model:
    return replace(
        idle(name, used=1000.0, busy=1, busy_replicas=1, demand=1.0),
        **fields,  # type: ignore[arg-type]
    )


def asked(name: str, waited: float = 1.0, **fields: object) -> Model:
    """A model at zero with a queued request."""
    model = Model(name, GPU, desired=1, queued=1, oldest_queued_seconds=waited)
    return replace(model, **fields)  # type: ignore[arg-type]


def decide(budget: Budget, *models: Model, memory: Memory | None = None) -> BudgetPlan:
    return plan(budget, models, memory or Memory(), 1000.0)


def replicas(result: BudgetPlan) -> dict[str, int]:
    return {name: grant.replicas for name, grant in result.grants.items()}


def test_a_model_that_fits_is_granted_its_replica() -> None:
    result = decide(TWO, idle("a"), asked("b"))

    assert replicas(result) == {"a": 1, "b": 1}
    assert result.grants["b"].reason is BudgetReason.WITHIN_BUDGET
    assert not result.evictions
    assert not result.waiting


def test_an_idle_model_makes_room_and_the_other_waits_until_it_has_gone() -> None:
    result = decide(ONE, idle("a", used=960.0), asked("b", 3))

    assert replicas(result) == {"a": 0, "b": 0}
    assert result.grants["a"].reason is BudgetReason.EVICTED
    assert result.grants["a"].message == (
        "idle for 40 s, 60 s to load, mean demand 0.00; makes room for b: 1 -> 0"
    )
    assert result.grants["b"].reason is BudgetReason.WAITING
    assert (
        result.grants["b"].message
        == "queued 1, waiting for 3 s: 1 GPU needed, next when a has gone"
    )
    assert result.waiting == ("b",)


def test_resources_are_free_only_when_the_replica_is_deleted() -> None:
    going = Model("a", GPU, stopping=1)
    waits = decide(ONE, going, asked("b"))
    granted = decide(ONE, replace(going, stopping=0), asked("b"))

    assert replicas(waits) == {"a": 0, "b": 0}
    assert "when replicas that terminate are deleted" in waits.grants["b"].message
    assert replicas(granted) == {"a": 0, "b": 1}


def test_an_evicted_model_does_not_return_before_the_one_that_waits() -> None:
    # Requests of the last seconds still count for its own autoscaling.
    going = Model("a", Resources(), desired=1, stopping=1)
    waiting = replace(asked("b"), cost=Resources())
    budget = Budget(limits(models=1))

    requested = decide(budget, replace(going, queued=1), waiting)
    meanwhile = decide(budget, going, waiting)
    afterwards = decide(budget, replace(going, stopping=0), waiting)

    assert replicas(requested) == replicas(meanwhile) == {"a": 0, "b": 0}
    assert "next when replicas that terminate are deleted" in meanwhile.grants["b"].message
    assert replicas(afterwards) == {"a": 0, "b": 1}


def test_a_model_at_zero_requires_a_replica_only_for_a_request() -> None:
    """Or else it would make an idle model go for nothing."""
    result = decide(ONE, idle("a"), Model("b", GPU, desired=1))

    assert replicas(result) == {"a": 1, "b": 0}
    assert not result.waiting


def test_an_eviction_does_not_cascade_to_the_model_that_is_evicted() -> None:
    result = decide(TWO, idle("a", used=900.0), idle("b", used=950.0), asked("c"))

    assert [each.model for each in result.evictions] == ["a"]
    assert replicas(result) == {"a": 0, "b": 1, "c": 0}


def test_a_request_that_arrives_before_the_replica_has_gone_keeps_it() -> None:
    before = decide(ONE, idle("a"), asked("b"))
    after = decide(ONE, busy("a"), asked("b"), memory=before.memory)

    assert replicas(after) == {"a": 1, "b": 0}


def test_a_busy_model_is_not_evicted_before_the_maximum_wait() -> None:
    result = decide(ONE, busy("a"), asked("b", 179))

    assert replicas(result) == {"a": 1, "b": 0}
    assert "all others are in use" in result.grants["b"].message


def test_a_busy_model_drains_after_the_maximum_wait() -> None:
    result = decide(ONE, busy("a", queued=2, oldest_queued_seconds=9.0), asked("b", 180))

    assert replicas(result) == {"a": 0, "b": 0}
    assert result.grants["a"].reason is BudgetReason.DRAINING
    assert result.grants["a"].message == (
        "in use (busy 1, queued 2), 60 s to load, mean demand 1.00; makes room for b, which has "
        "waited for 180 s: 1 -> 0"
    )
    assert result.evictions[0].drains


@pytest.mark.parametrize(
    ("loaded_at", "oldest"),
    [
        pytest.param(1000.0 - 299, 0.0, id="its turn is not over"),
        pytest.param(1000.0 - 400, 401.0, id="requests are left that were queued before its turn"),
    ],
)
def test_a_busy_model_has_its_turn(loaded_at: float, oldest: float) -> None:
    model = busy("a", loaded_at=loaded_at, queued=1, oldest_queued_seconds=oldest)

    assert replicas(decide(ONE, model, asked("b", 300))) == {"a": 1, "b": 0}


def test_a_drained_model_waits_behind_the_one_that_it_made_room_for() -> None:
    # Its oldest request is the oldest of all, but it has just had its turn.
    first = decide(ONE, busy("a", queued=5, oldest_queued_seconds=400.0), asked("b", 200))
    gone = asked("a", 402, queued=5)
    after = plan(ONE, [gone, asked("b", 202)], first.memory, 1002.0)

    assert replicas(after) == {"a": 0, "b": 1}


def test_what_becomes_free_is_reserved_for_a_model_that_is_overdue() -> None:
    large = asked("large", 200, cost=Resources(gpus=2))
    just_loaded = busy("a", loaded_at=995.0)
    result = decide(TWO, just_loaded, large, asked("small", 2))

    assert replicas(result) == {"a": 1, "large": 0, "small": 0}
    assert result.waiting == ("large", "small")


def test_a_small_model_may_use_what_a_large_one_cannot() -> None:
    large = asked("large", 10, cost=Resources(gpus=2))
    result = decide(TWO, busy("a"), large, asked("small", 2))

    assert replicas(result) == {"a": 1, "large": 0, "small": 1}


def test_min_replicas_are_never_evicted() -> None:
    result = decide(ONE, idle("a", minimum=1), asked("b", 500))

    assert replicas(result) == {"a": 1, "b": 0}
    assert result.grants["b"].reason is BudgetReason.EXCEEDS_BUDGET
    assert "reserved by minReplicas of other models" in result.grants["b"].message


def test_only_replicas_beyond_min_replicas_are_evicted() -> None:
    scaled = idle("scaled", ready=3, desired=3, minimum=2)
    one = decide(Budget(limits(gpus=3)), scaled, asked("b"))
    two = decide(Budget(limits(gpus=3)), scaled, asked("b", cost=Resources(gpus=2)))

    assert replicas(one) == {"scaled": 2, "b": 0}
    assert replicas(two) == {"scaled": 3, "b": 0}


def test_a_model_that_scales_up_is_not_evicted() -> None:
    result = decide(TWO, idle("a", ready=1, starting=1, desired=2), asked("b"))

    assert replicas(result) == {"a": 2, "b": 0}


def test_min_replicas_come_before_requests() -> None:
    pinned = Model("pinned", GPU, minimum=1)

    assert replicas(decide(ONE, asked("a", 500), pinned)) == {"a": 0, "pinned": 1}


def test_a_model_that_never_fits_evicts_nobody() -> None:
    result = decide(TWO, idle("a"), idle("b"), asked("huge", 500, cost=Resources(gpus=4)))

    assert replicas(result) == {"a": 1, "b": 1, "huge": 0}
    assert result.grants["huge"].message == (
        "queued 1, waiting for 500 s: 4 GPUs needed, the budget is 2 GPUs"
    )


def test_the_minimum_residency_protects_what_was_just_loaded() -> None:
    budget = replace(ONE, minimum_residency_seconds=30.0)
    kept = decide(budget, idle("a", loaded_at=971.0, used=971.0), asked("b"))
    evicted = decide(budget, idle("a", loaded_at=970.0, used=970.0), asked("b"))

    assert replicas(kept)["a"] == 1
    assert replicas(evicted)["a"] == 0


def test_a_model_that_loads_is_not_evicted() -> None:
    result = decide(ONE, Model("a", GPU, desired=1, starting=1), asked("b", 500))

    assert replicas(result) == {"a": 1, "b": 0}


def test_the_model_that_loads_faster_is_evicted() -> None:
    slow = idle("slow", used=900.0, load=300.0)
    fast = idle("fast", used=990.0, load=5.0)

    assert replicas(decide(TWO, slow, fast, asked("c"))) == {"slow": 1, "fast": 0, "c": 0}


def test_among_equals_the_least_recently_used_is_evicted() -> None:
    result = decide(TWO, idle("a", used=950.0), idle("b", used=940.0), asked("c"))

    assert replicas(result) == {"a": 1, "b": 0, "c": 0}


def test_the_model_with_less_demand_is_evicted() -> None:
    result = decide(
        TWO, idle("a", used=940.0, demand=2.0), idle("b", used=950.0, demand=0.1), asked("c")
    )

    assert replicas(result) == {"a": 1, "b": 0, "c": 0}


def test_a_slow_model_that_is_not_used_pays_rent_until_it_goes() -> None:
    memory = Memory()
    slow = idle("slow", used=0.0, load=100.0)
    names = iter(f"fast{number}" for number in range(1000))
    evicted = ""
    rounds = 0
    while evicted != "slow":
        rounds += 1
        fast = idle(next(names), used=900.0, load=10.0)
        result = decide(TWO, slow, fast, asked("next"), memory=memory)
        memory = result.memory
        evicted = result.evictions[0].model

    # As much as it costs to load, at ten seconds for each of the others.
    assert 5 <= rounds <= 11


def test_nothing_is_evicted_in_vain() -> None:
    large = asked("large", 10, cost=Resources(gpus=2))

    assert replicas(decide(TWO, idle("a"), busy("b"), large)) == {"a": 1, "b": 1, "large": 0}


def test_no_more_is_evicted_than_needed() -> None:
    budget = Budget(limits(gpus=3))
    small = idle("small", load=5.0)
    large = idle("large", load=300.0, cost=Resources(gpus=2))
    result = decide(budget, small, large, asked("next", cost=Resources(gpus=2)))

    assert replicas(result) == {"small": 1, "large": 0, "next": 0}


def test_further_replicas_go_before_the_last_one_of_a_model() -> None:
    scaled = idle("scaled", ready=2, desired=2, used=990.0)
    result = decide(Budget(limits(gpus=3)), scaled, idle("a", used=100.0), asked("b"))

    assert replicas(result) == {"scaled": 1, "a": 1, "b": 0}


def test_a_further_idle_replica_of_a_busy_model_makes_room() -> None:
    scaled = busy("scaled", ready=3, desired=3, busy_replicas=2)

    assert replicas(decide(Budget(limits(gpus=3)), scaled, asked("b"))) == {"scaled": 2, "b": 0}


def test_further_replicas_evict_only_what_has_long_been_idle() -> None:
    more = busy("more", desired=2, queued=3)
    kept = decide(TWO, more, idle("a", used=950.0))
    evicted = decide(TWO, more, idle("a", used=940.0))

    assert replicas(kept) == {"more": 1, "a": 1}
    assert replicas(evicted) == {"more": 1, "a": 0}


def test_replicas_that_cannot_start_make_room_first() -> None:
    blocked = Model("blocked", GPU, desired=1, starting=1, queued=1, blocked=True)
    result = decide(TWO, blocked, idle("a"), asked("b"))

    assert replicas(result) == {"blocked": 0, "a": 1, "b": 0}
    assert "cannot start" in result.grants["blocked"].message


def test_others_drain_only_late_for_a_model_that_could_not_start() -> None:
    blocked = Model("b", GPU, desired=1, starting=1, queued=1, blocked=True)
    memory = decide(ONE, blocked, memory=Memory()).memory
    early = decide(ONE, busy("a"), asked("b", 1799), memory=replace(memory, alive_at={}))
    late = decide(ONE, busy("a"), asked("b", 1800), memory=replace(memory, alive_at={}))

    assert replicas(early)["a"] == 1
    assert replicas(late)["a"] == 0


def test_a_granted_replica_counts_before_it_is_observed() -> None:
    first = decide(ONE, asked("a", 9), asked("b", 1))
    assert replicas(first) == {"a": 1, "b": 0}

    # The request for a has gone, and the pass that creates its replica may still be under way.
    withdrawn = Model("a", GPU)
    soon = plan(ONE, [withdrawn, asked("b", 2)], first.memory, 1001.0)
    later = plan(ONE, [withdrawn, asked("b", 12)], soon.memory, 1000.0 + GRANT_SECONDS)

    assert replicas(soon)["b"] == 0
    assert soon.used.gpus == 1
    assert replicas(later) == {"a": 0, "b": 1}


def test_a_shorter_load_for_more_requests_comes_first() -> None:
    result = decide(ONE, asked("slow", 9, load_seconds=300.0), asked("fast", 1, load_seconds=5.0))

    assert replicas(result) == {"slow": 0, "fast": 1}


def test_the_longest_wait_comes_first_after_the_maximum_wait() -> None:
    result = decide(
        ONE, asked("slow", 200, load_seconds=300.0), asked("fast", 190, load_seconds=5.0)
    )

    assert replicas(result) == {"slow": 1, "fast": 0}
    assert result.waiting == ("fast",)


def test_memory_and_the_number_of_models_are_limited_too() -> None:
    gib = 2**30
    memory = decide(
        Budget(limits(memory=10 * gib)),
        idle("a", cost=Resources(memory=6 * gib)),
        asked("b", cost=Resources(memory=6 * gib)),
    )
    models = decide(
        Budget(limits(models=1)), idle("a", ready=2, desired=2, cost=Resources()), asked("b")
    )

    assert replicas(memory) == {"a": 0, "b": 0}
    assert "6.0 GiB needed" in memory.grants["b"].message
    assert replicas(models) == {"a": 0, "b": 0}
    assert "1 model needed" in models.grants["b"].message


def test_without_a_limit_everything_fits() -> None:
    assert replicas(decide(Budget(), idle("a"), asked("b", desired=9))) == {"a": 1, "b": 9}


def batch(name: str, **fields: object) -> Model:
    """A model at zero with preemptible requests only."""
    return replace(Model(name, GPU, desired=1, preemptible=3), **fields)  # type: ignore[arg-type]


def test_preemptible_requests_get_free_room() -> None:
    assert replicas(decide(TWO, busy("a"), batch("b"))) == {"a": 1, "b": 1}


def test_nothing_makes_room_for_preemptible_requests_however_long_they_wait() -> None:
    first = decide(ONE, idle("a"), batch("b"))
    later = plan(ONE, [idle("a"), batch("b")], first.memory, 5000.0)

    for result in (first, later):
        assert replicas(result) == {"a": 1, "b": 0}
        assert result.grants["b"].reason is BudgetReason.WAITING
        assert "1 GPU needed, all requests are preemptible" in result.grants["b"].message


def test_other_models_come_before_those_with_preemptible_requests_only() -> None:
    assert replicas(decide(ONE, batch("b"), asked("c"))) == {"b": 0, "c": 1}


def test_a_model_with_preemptible_requests_only_makes_room_like_an_idle_one() -> None:
    running = idle("b", preemptible=4)
    assert replicas(decide(ONE, running, asked("c"))) == {"b": 0, "c": 0}


def test_ordinary_requests_count_though_there_are_preemptible_ones() -> None:
    result = decide(ONE, idle("a"), asked("b", preemptible=3))
    assert replicas(result) == {"a": 0, "b": 0}
    assert [each.model for each in result.evictions] == ["a"]


def test_min_replicas_are_served_though_all_requests_are_preemptible() -> None:
    result = decide(ONE, idle("a"), batch("b", minimum=1))
    assert replicas(result) == {"a": 0, "b": 0}
