"""The decision on the Job that reads headers follows its table."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from inspection_jobs import RECORD
from llamaservers import DOWNLOADS, IMAGES, UID, raw_server
from slotkeeper import __version__
from slotkeeper.api.conditions import rfc3339
from slotkeeper.api.problem_reasons import Reason
from slotkeeper.api.server import LlamaServer
from slotkeeper.desired import inspection, names
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.decide.inspection import Inspection, decide_inspection
from slotkeeper.reconcile.observe.memory import Header, MemoryFacts
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.problem import Problem

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
JUST_NOW = rfc3339(NOW - timedelta(seconds=5))
LONG_AGO = rfc3339(NOW - timedelta(hours=2))


def server(*, status: Any = None, **spec: Any) -> LlamaServer:
    raw = raw_server(gpu={"memory": "15Gi"}, **spec)
    metadata = {"name": "chat", "namespace": "default", "uid": UID, "generation": 1}
    return LlamaServer.parse({**raw, "metadata": metadata, "status": status or {}})


FILES = inspection.sources(server())
READ: dict[str, Any] = {"memory": {"files": FILES, "record": RECORD}}
OF_OTHER_FILES: dict[str, Any] = {"memory": {"files": "other", "record": RECORD}}
UNPLANNABLE: dict[str, Any] = {
    "memory": {"files": FILES, "unplannable": "it is not a GGUF file", "release": __version__}
}
OF_ANOTHER_RELEASE = {"memory": UNPLANNABLE["memory"] | {"release": "0.0.9"}}

RUNS: dict[str, Any] = {}
SUCCEEDED = {
    "conditions": [{"type": "Complete", "status": "True"}],
    "completionTime": JUST_NOW,
}
OLD = SUCCEEDED | {"completionTime": LONG_AGO}


def failed(since: str) -> dict[str, Any]:
    condition = {
        "type": "Failed",
        "status": "True",
        "reason": "BackoffLimitExceeded",
        "lastTransitionTime": since,
    }
    return {"conditions": [condition]}


@dataclass(frozen=True)
class Case:
    job: Any = None
    """The status of the existing Job; None without one."""
    status: Any = None
    reported: bool = False
    """Whether a pod of the Job has reported headers."""
    is_old_spec: bool = False
    suspend: bool = False
    gpu_bytes: int | None = 15 * 1024**3
    rejected: bool = False
    full: bool = False
    """Whether other servers have too many Jobs."""
    auto: bool = False
    """Whether replicas wait for it."""


ROWS = [
    (Case(), Inspection.RUN),
    (Case(suspend=True), Inspection.NONE),
    (Case(gpu_bytes=None), Inspection.NONE),
    (Case(status=READ), Inspection.NONE),
    (Case(status=UNPLANNABLE), Inspection.NONE),
    (Case(status=OF_ANOTHER_RELEASE), Inspection.RUN),
    (Case(status=OF_OTHER_FILES), Inspection.RUN),
    (Case(rejected=True), Inspection.NONE),
    (Case(rejected=True, auto=True), Inspection.NONE),
    (Case(full=True), Inspection.NONE),
    (Case(full=True, auto=True), Inspection.RUN),
    (Case(job=RUNS, full=True), Inspection.RUN),
    (Case(job=RUNS, rejected=True), Inspection.KEEP),
    (Case(job=RUNS, rejected=True, suspend=True), Inspection.NONE),
    (Case(job=RUNS, rejected=True, is_old_spec=True), Inspection.NONE),
    (Case(job=SUCCEEDED, status=READ), Inspection.NONE),
    (Case(job=RUNS), Inspection.RUN),
    (Case(job=RUNS, suspend=True), Inspection.NONE),
    (Case(job=RUNS, is_old_spec=True), Inspection.NONE),
    (Case(job=SUCCEEDED, reported=True), Inspection.KEEP),
    (Case(job=SUCCEEDED, reported=True, is_old_spec=True), Inspection.KEEP),
    (Case(job=OLD, reported=True), Inspection.KEEP),
    (Case(job=SUCCEEDED), Inspection.KEEP),
    (Case(job=OLD), Inspection.NONE),
    (Case(job=failed(JUST_NOW)), Inspection.KEEP),
    (Case(job=failed(JUST_NOW), is_old_spec=True), Inspection.NONE),
    (Case(job=failed(LONG_AGO)), Inspection.NONE),
]


@pytest.mark.parametrize(("case", "expected"), ROWS, ids=str)
def test_the_decision_follows_its_table(case: Case, expected: Inspection) -> None:
    owner = server(status=case.status, suspend=case.suspend)
    job = inspection.job(owner, IMAGES, DOWNLOADS)

    assert decide_inspection(owner, observed(case, job), job, NOW) is expected


def observed(case: Case, job: Manifest) -> Observed:
    return Observed(
        children={},
        replica_pods=[],
        balancer_pods=[],
        worker_pods=[],
        replicas=None,
        balancers=None,
        workers=[],
        replica_sets=[],
        prefetch_job=None,
        prefetch_pods=[],
        inspection_job=existing(case, job),
        inspection_pods=[],
        unlabelled={},
        inspection_rejected="a quota" if case.rejected else "",
        inspections_full=case.full,
        memory=MemoryFacts(
            FILES,
            "",
            Header(RECORD) if case.reported else None,
            gpu_bytes=case.gpu_bytes,
            unchosen=Problem(Reason.READING_HEADER, "waiting") if case.auto else None,
        ),
    )


def existing(case: Case, job: Manifest) -> Manifest | None:
    if case.job is None:
        return None
    metadata = dict(job["metadata"])
    if case.is_old_spec:
        metadata["annotations"] = {names.TEMPLATE_HASH_ANNOTATION: "another"}
    return {**job, "metadata": metadata, "status": case.job}
