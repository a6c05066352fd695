from slotkeeper.reconcile.downloads.report import ProgressReport
from slotkeeper.reconcile.downloads.tracker import MAX_AGE_SECONDS, MAX_POLLED, TrackedDownload

PODS = {"a": "10.0.0.1:9091", "b": "10.0.0.2:9091"}


def downloading(downloaded: int, left: int | None = None) -> ProgressReport:
    return ProgressReport(
        phase="Downloading", total_bytes=100, downloaded_bytes=downloaded, seconds_left=left
    )


WAITING = ProgressReport(phase="Waiting")
VERIFYING = ProgressReport(phase="Verifying", total_bytes=100, downloaded_bytes=100)


def tracked(pods: dict[str, str] = PODS) -> TrackedDownload:
    download = TrackedDownload()
    download.track(pods, 0.0)
    return download


def test_the_pod_that_will_be_ready_first_is_reported() -> None:
    download = tracked()
    download.update("a", downloading(90, left=50), 1.0)
    download.update("b", downloading(10, left=5), 1.0)

    assert download.latest(PODS, 1.0) == downloading(10, left=5)


def test_a_pod_that_waits_is_reported_only_where_none_downloads() -> None:
    download = tracked()
    download.update("a", WAITING, 1.0)
    alone = download.latest(PODS, 1.0)
    download.update("b", downloading(0), 1.0)

    assert (alone, download.latest(PODS, 1.0)) == (WAITING, downloading(0))


def test_a_pod_whose_download_has_ended_is_not_reported() -> None:
    download = tracked()
    download.update("a", downloading(90), 1.0)
    before_the_pass = download.latest({"b": PODS["b"]}, 1.0)
    download.track({"b": PODS["b"]}, 1.0)
    download.update("a", downloading(100), 1.5)

    assert before_the_pass is None
    assert download.latest(download.addresses, 1.5) is None


def test_a_pod_that_stops_responding_is_reported_for_half_a_minute() -> None:
    download = tracked()
    download.update("a", downloading(90), 1.0)

    assert download.latest(PODS, 1.0 + MAX_AGE_SECONDS) is not None
    assert download.latest(PODS, 1.1 + MAX_AGE_SECONDS) is None


def test_of_many_pods_the_reported_one_and_some_others_are_polled_in_turns() -> None:
    pods = {f"{number:03}": f"10.0.0.{number}:9091" for number in range(50)}
    download = tracked(pods)
    first = {pod for pod, _ in download.next_pods(0.0)}
    best = min(first)
    download.update(best, downloading(1, left=1), 0.0)
    rounds = [[pod for pod, _ in download.next_pods(0.0)] for _ in range(4)]

    assert {len(each) for each in rounds} == {MAX_POLLED}
    assert all(each[0] == best for each in rounds)
    assert {*first, *(pod for each in rounds for pod in each)} == {*pods}


def test_few_pods_are_all_polled() -> None:
    assert tracked().next_pods(3.0) == list(PODS.items())


def test_a_download_that_receives_nothing_is_stalled() -> None:
    download = tracked()
    download.update("a", downloading(10), 10.0)
    download.update("a", downloading(10), 70.0)
    stalled = download.sample(70.0)
    download.update("a", downloading(11), 80.0)

    assert stalled
    assert stalled.stalled_seconds == 60.0
    assert (sample := download.sample(80.0))
    assert sample.stalled_seconds == 0.0


def test_verifying_and_waiting_are_no_stall() -> None:
    for report in (VERIFYING, WAITING):
        download = tracked()
        download.update("a", report, 0.0)
        download.update("a", report, 1000.0)

        assert (sample := download.sample(1000.0))
        assert sample.stalled_seconds == 0.0


def test_a_stall_counts_from_the_first_pod_that_downloads() -> None:
    download = tracked()
    download.track({}, 100.0)
    download.track(PODS, 500.0)
    download.update("a", downloading(0), 510.0)

    assert (sample := download.sample(520.0))
    assert sample.stalled_seconds == 10.0


def test_there_is_no_sample_without_a_report() -> None:
    assert tracked().sample(0.0) is None
    assert TrackedDownload().sample(0.0) is None
