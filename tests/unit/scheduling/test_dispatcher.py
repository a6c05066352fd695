import pytest

from slotkeeper.scheduling import Dispatcher, QueueFull, QueueLimits, SlotReservation

LIMITS = QueueLimits(max_queued=2, max_queued_bytes=100, queue_timeout=60, cold_start_timeout=600)


def with_replicas(**slots: int) -> Dispatcher[str]:
    dispatcher: Dispatcher[str] = Dispatcher(LIMITS)
    for name, count in slots.items():
        dispatcher.add(name, count, now=0)
    return dispatcher


def arrive(
    dispatcher: Dispatcher[str], *names: str, now: float = 0, size: int = 1
) -> list[SlotReservation[str]]:
    reservations = []
    for name in names:
        dispatcher.enqueue(name, size, now)
        reservations += dispatcher.dispatch(now)
    return reservations


def pairs(reservations: list[SlotReservation[str]]) -> list[tuple[str, str]]:
    return [(each.queued.request, each.replica.name) for each in reservations]


def test_a_request_is_dispatched_to_the_replica_with_most_free_slots() -> None:
    dispatcher = with_replicas(a=1, b=3)

    assert pairs(arrive(dispatcher, "1", "2", "3")) == [("1", "b"), ("2", "b"), ("3", "a")]


def test_among_equals_the_least_recently_used_replica_is_next() -> None:
    dispatcher = with_replicas(a=2, b=2)
    order = []
    for name in ("1", "2", "3", "4"):
        (reservation,) = arrive(dispatcher, name)
        order.append(reservation.replica.name)
        dispatcher.release(reservation, now=0)

    assert order == ["a", "b", "a", "b"]


def test_queued_requests_are_dispatched_in_order_of_arrival() -> None:
    dispatcher = with_replicas(a=1)
    (reservation,) = arrive(dispatcher, "1", "2", "3")
    dispatcher.release(reservation, now=1)

    (second,) = dispatcher.dispatch(now=1)
    assert second.queued.request == "2"
    assert dispatcher.queued == 1


def test_one_request_beyond_the_limit_is_rejected_and_none_before_it() -> None:
    dispatcher = with_replicas(a=1)
    arrive(dispatcher, "running", "1", "2")

    with pytest.raises(QueueFull, match="2 requests"):
        dispatcher.enqueue("3", 1, now=0)


def test_bytes_beyond_the_limit_are_rejected() -> None:
    dispatcher = with_replicas()
    arrive(dispatcher, "1", size=60)

    with pytest.raises(QueueFull, match="60 bytes"):
        dispatcher.enqueue("2", 41, now=0)
    dispatcher.enqueue("2", 40, now=0)


def test_limits_do_not_apply_to_a_request_that_can_start_at_once() -> None:
    dispatcher = Dispatcher[str](QueueLimits(max_queued=0, max_queued_bytes=0))
    dispatcher.add("a", 1, now=0)

    assert pairs(arrive(dispatcher, "1", size=10)) == [("1", "a")]
    with pytest.raises(QueueFull):
        dispatcher.enqueue("2", 0, now=0)


def test_a_canceled_request_leaves_the_queue_at_once() -> None:
    dispatcher = with_replicas()
    queued = dispatcher.enqueue("1", 60, now=0)

    assert dispatcher.cancel(queued)
    assert not dispatcher.cancel(queued)
    assert (dispatcher.queued, dispatcher.queued_bytes) == (0, 0)


def test_requeued_requests_are_ahead_of_all_that_arrived_later() -> None:
    dispatcher = with_replicas(a=2)
    first, second = arrive(dispatcher, "1", "2", "3", "4")
    dispatcher.drain("a", now=0)
    for reservation in (second, first):
        dispatcher.release(reservation, now=0)
        dispatcher.requeue(reservation.queued)
    dispatcher.add("b", 4, now=0)

    assert [each.queued.request for each in dispatcher.dispatch(now=0)] == ["1", "2", "3", "4"]


def test_requeued_requests_keep_their_order_of_arrival() -> None:
    dispatcher = with_replicas(a=2)
    first, second = arrive(dispatcher, "1", "2", "3")
    dispatcher.drain("a", now=0)
    for reservation in (first, second):
        dispatcher.release(reservation, now=0)
        dispatcher.requeue(reservation.queued)
    dispatcher.add("b", 4, now=0)

    assert [each.queued.request for each in dispatcher.dispatch(now=0)] == ["1", "2", "3"]


def test_an_aborted_requests_slot_is_busy_until_it_is_released() -> None:
    dispatcher = with_replicas(a=1)
    (reservation,) = arrive(dispatcher, "1", "2")
    dispatcher.abort(reservation, now=1)
    assert dispatcher.dispatch(now=1) == []

    dispatcher.release(reservation, now=2)
    assert pairs(dispatcher.dispatch(now=2)) == [("2", "a")]


def test_a_slot_that_is_released_twice_is_one_slot() -> None:
    dispatcher = with_replicas(a=2)
    first, _ = arrive(dispatcher, "1", "2")
    dispatcher.release(first, now=0)
    dispatcher.release(first, now=0)

    assert dispatcher.busy_slots == 1


def test_a_draining_replica_gets_no_new_request_and_keeps_its_running_ones() -> None:
    dispatcher = with_replicas(a=2)
    arrive(dispatcher, "1")
    dispatcher.drain("a", now=0)

    assert arrive(dispatcher, "2") == []
    assert (dispatcher.busy_slots, dispatcher.total_slots, dispatcher.has_replica) == (1, 1, False)


def test_a_removed_replica_is_deleted_with_its_last_request() -> None:
    dispatcher = with_replicas(a=2)
    (reservation,) = arrive(dispatcher, "1")
    dispatcher.remove("a", now=0)
    assert "a" in dispatcher.replicas

    dispatcher.release(reservation, now=0)
    assert dispatcher.replicas == {}


def test_a_replica_that_returns_still_counts_its_running_requests() -> None:
    dispatcher = with_replicas(a=2)
    arrive(dispatcher, "1")
    dispatcher.remove("a", now=0)
    dispatcher.add("a", 2, now=1)

    assert pairs(arrive(dispatcher, "2", "3")) == [("2", "a")]


def test_a_replica_with_fewer_slots_than_running_requests_has_none_free() -> None:
    dispatcher = with_replicas(a=3)
    arrive(dispatcher, "1", "2", "3")
    dispatcher.add("a", 1, now=0)

    assert (dispatcher.total_slots, dispatcher.busy_slots) == (3, 3)
    assert dispatcher.replicas["a"].free == 0


def test_queued_requests_expire_at_their_deadline() -> None:
    dispatcher = with_replicas(a=1)
    arrive(dispatcher, "running", "1", now=0)
    arrive(dispatcher, "2", now=10)

    assert dispatcher.next_deadline() == 60
    assert dispatcher.take_expired(now=59.9) == []
    assert [queued.request for queued in dispatcher.take_expired(now=60)] == ["1"]
    assert dispatcher.next_deadline() == 70


def test_without_a_replica_the_cold_start_timeout_applies() -> None:
    dispatcher = with_replicas()
    arrive(dispatcher, "1", now=0)

    assert dispatcher.next_deadline() == 600


def test_no_request_expires_when_the_first_replica_becomes_ready() -> None:
    dispatcher = with_replicas()
    arrive(dispatcher, "1", "2", now=0)
    dispatcher.add("a", 1, now=500)
    dispatcher.dispatch(now=500)

    assert dispatcher.take_expired(now=500) == []
    assert dispatcher.next_deadline() == 560


def test_flapping_replicas_do_not_extend_a_deadline_without_end() -> None:
    dispatcher = with_replicas(a=1)
    arrive(dispatcher, "running", "1", now=0)
    for now in range(10, 700, 10):
        dispatcher.drain("a", now)
        dispatcher.add("a", 1, now)

    assert dispatcher.next_deadline() == 660


def test_retry_after_follows_the_rate_of_completions() -> None:
    dispatcher = with_replicas(a=1)
    for second in range(11):
        dispatcher.release(arrive(dispatcher, "x", now=2 * second)[0], now=2 * second)
    arrive(dispatcher, "running", "1", "2", now=20)

    assert dispatcher.retry_after(now=20) == pytest.approx(3 * 2)
    assert dispatcher.retry_after(now=40) == pytest.approx(3 * 4)


def test_retry_after_is_never_less_than_a_second() -> None:
    assert with_replicas(a=1).retry_after(now=0) == 1
    assert with_replicas().retry_after(now=0) == 5


def test_metrics_count_slots_and_queued_requests() -> None:
    dispatcher = with_replicas(a=2, b=1)
    arrive(dispatcher, "1", "2", "3", now=1)
    arrive(dispatcher, "4", now=3)

    assert (dispatcher.total_slots, dispatcher.busy_slots, dispatcher.queued) == (3, 3, 1)
    assert dispatcher.oldest_queued_seconds(now=5) == 2
    assert [replica.name for replica in dispatcher.ready_replicas()] == ["a", "b"]
