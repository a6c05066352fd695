from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from slotkeeper.batches.scheduler import PREEMPTED, THROTTLED, Job, Next, Scheduler, Window


def job(batch_id: str, owner: str, count: int, model: str = "one") -> Job:
    return Job(batch_id, owner, ((model, line) for line in range(count)))


def start_all(scheduler: Scheduler, owners: set[str], now: float = 0.0) -> list[Next]:
    started = []
    while found := scheduler.start(now, owners):
        started.append(found)
    return started


def opened(scheduler: Scheduler, model: str = "one", size: int = 100) -> Scheduler:
    """The same scheduler, with a wide window for a model."""
    scheduler.window(model)._size = float(size)
    return scheduler


def test_owners_take_turns_and_so_do_their_batches() -> None:
    scheduler = opened(Scheduler(8))
    for name, owner, count in (("a", "ann", 100), ("b", "ann", 100), ("c", "bob", 100)):
        scheduler.add(job(name, owner, count))

    started = start_all(scheduler, {"ann", "bob"})

    assert [each.batch_id for each in started] == ["a", "c", "b", "c", "a", "c", "b", "c"]


def test_a_model_without_slots_does_not_block_the_others_of_a_batch() -> None:
    scheduler = opened(Scheduler(10), "two")
    scheduler.add(Job("a", "", [("one", 0), ("one", 1), ("two", 2), ("two", 3)]))

    assert [each.line for each in start_all(scheduler, {""})] == [0, 2, 3]


def test_an_owner_without_an_api_key_waits() -> None:
    scheduler = opened(Scheduler(10))
    scheduler.add(job("a", "ann", 2))
    scheduler.add(job("b", "bob", 2))

    assert {each.batch_id for each in start_all(scheduler, {"bob"})} == {"b"}
    assert len(start_all(scheduler, {"ann", "bob"})) == 2


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=6, unique=True))
def test_each_line_is_started_once(batches: list[tuple[str, int]]) -> None:
    scheduler = opened(Scheduler(1000), size=1000)
    expected: Counter[tuple[str, int]] = Counter()
    for number, (owner, count) in enumerate(batches):
        scheduler.add(job(str(number), owner, count))
        expected.update((str(number), line) for line in range(count))

    started = start_all(scheduler, set("abc"))

    assert Counter((each.batch_id, each.line) for each in started) == expected
    assert scheduler.in_progress == len(started)


def test_a_window_grows_by_one_for_as_many_successes_as_it_has_requests() -> None:
    window = Window()
    sizes = []
    for _ in range(7):
        window.succeeded(4)
        sizes.append(window.size)

    assert sizes == [2, 2, 2, 3, 3, 3, 4]
    for _ in range(100):
        window.succeeded(4)
    assert window.size == 4


def test_a_window_is_halved_once_for_all_requests_that_are_rejected_together() -> None:
    window = Window()
    window._size = 16.0
    for _ in range(8):
        window.throttled(100.0, THROTTLED)

    assert window.size == 8
    assert not window.is_open(100.0)
    assert window.is_open(100.5)
    window.throttled(101.0, THROTTLED)
    assert window.size == 4
    assert not window.is_open(101.9)


def test_the_delay_of_a_model_without_slots_is_bounded() -> None:
    window = Window()
    for number in range(20):
        window.throttled(number * 100.0, THROTTLED, 10_000.0)

    assert window.resumes_at == 1900 + 30
    window.succeeded(10)
    for number in range(20):
        window.throttled(2000.0 + number * 100, PREEMPTED, 10_000.0)
    assert window.resumes_at == 3900 + 5


def test_idle_models_are_forgotten() -> None:
    scheduler = Scheduler(10)
    scheduler.add(job("a", "", 1))
    [started] = start_all(scheduler, {""})
    scheduler.forget_idle_windows()
    assert "one" in scheduler._windows

    scheduler.ended(started.model)
    scheduler.remove("", "a")
    scheduler.forget_idle_windows()
    assert scheduler._windows == {}
    assert scheduler.start(0.0, {""}) is None
