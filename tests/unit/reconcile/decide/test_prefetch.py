"""The decision on a server's prefetch Job, row by row."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llamaservers import IMAGES, server
from operator_harness import pod_of
from pod_statuses import RUNNING, download, terminated, unschedulable
from slotkeeper.api.conditions import rfc3339
from slotkeeper.desired import names, prefetch, replicas
from slotkeeper.desired.download_settings import NO_SETTINGS
from slotkeeper.kube.cluster import Manifest
from slotkeeper.reconcile.decide.prefetch import Prefetch, decide_prefetch
from slotkeeper.reconcile.decide.replicas import DesiredReplicas
from slotkeeper.reconcile.observe.observed import Observed
from slotkeeper.reconcile.observe.prefetch import RETRY_AFTER, RETRY_REJECTED_AFTER

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
MODEL = {"url": "https://models.example.com/model.gguf", "cache": {"claimName": "models"}}
SERVER = server(model=MODEL, autoscaling={"minReplicas": 0, "maxReplicas": 2})
SUSPENDED = replace(SERVER, spec=SERVER.spec.model_copy(update={"suspend": True}))
JOB = prefetch.job(SERVER, IMAGES, NO_SETTINGS)
DEPLOYMENT = replicas.deployment(SERVER, 1, IMAGES)
DEPLOYMENT["metadata"]["uid"] = "deployment"

RUNS: list[Manifest] = []
SUCCEEDED = [{"type": "Complete", "status": "True"}]


def failed(reason: str, *, ago: timedelta = timedelta()) -> list[Manifest]:
    times = {"lastTransitionTime": rfc3339(NOW - ago)}
    return [{"type": "Failed", "status": "True", "reason": reason, **times}]


FOR_GOOD = failed("PodFailurePolicy")
EXHAUSTED = failed("BackoffLimitExceeded")
LONG_AGO = RETRY_AFTER + timedelta(seconds=1)
TERMINATING = [{"type": "FailureTarget", "status": "True", "reason": "PodFailurePolicy"}]


@dataclass(frozen=True)
class Case:
    """What exists: the conditions of the Job (None: no Job), and the pods of replicas."""

    job: list[Manifest] | None
    desired: int = 0
    pods: tuple[Manifest, ...] = ()
    is_old_spec: bool = False
    is_owned: bool = True
    is_suspended: bool = False
    is_used: bool = True


def pod(status: Manifest, **spec: Any) -> Manifest:
    created = pod_of(DEPLOYMENT, ready=False)
    return created | {"status": status, "spec": {**created["spec"], **spec}}


LACKS_GPU = pod(unschedulable("1 Insufficient nvidia.com/gpu"))
LACKS_NODE = pod(unschedulable("3 node(s) didn't match Pod's node affinity/selector"))
LACKS_CPU = pod(unschedulable("1 Insufficient cpu, 1 Insufficient nvidia.com/gpu"))
LACKS_CLAIM = pod(unschedulable("1 node has pod using a claim with ReadWriteOncePod access mode"))
ON_NODE = pod({}, nodeName="a")
DOWNLOADING = pod(download(state=RUNNING), nodeName="a")
DOWNLOADED = pod(download(state=terminated(code=0)), nodeName="a")

ROWS = [
    (Case(RUNS, is_used=False), Prefetch.NONE),
    (Case(SUCCEEDED, is_used=False), Prefetch.NONE),
    (Case(None), Prefetch.RUN),
    (Case(None, is_suspended=True), Prefetch.NONE),
    (Case(None, desired=1), Prefetch.NONE),
    (Case(None, pods=(ON_NODE,)), Prefetch.NONE),
    (Case(SUCCEEDED), Prefetch.KEEP),
    (Case(SUCCEEDED, desired=1, pods=(DOWNLOADED,)), Prefetch.KEEP),
    (Case(SUCCEEDED, is_old_spec=True), Prefetch.KEEP),
    (Case(SUCCEEDED, is_suspended=True), Prefetch.KEEP),
    (Case(SUCCEEDED, is_owned=False), Prefetch.RUN),
    (Case(SUCCEEDED, is_owned=False, is_old_spec=True), Prefetch.KEEP),
    (Case(FOR_GOOD), Prefetch.KEEP),
    (Case(TERMINATING), Prefetch.KEEP),
    (Case(failed("PodFailurePolicy", ago=LONG_AGO)), Prefetch.KEEP),
    (Case(failed("PodFailurePolicy", ago=RETRY_REJECTED_AFTER)), Prefetch.NONE),
    (Case(FOR_GOOD, is_old_spec=True), Prefetch.NONE),
    (Case(FOR_GOOD, desired=1, pods=(DOWNLOADING,)), Prefetch.KEEP),
    (Case(FOR_GOOD, desired=1, pods=(DOWNLOADED,)), Prefetch.NONE),
    (Case(EXHAUSTED), Prefetch.KEEP),
    (Case(failed("BackoffLimitExceeded", ago=LONG_AGO)), Prefetch.NONE),
    (Case(RUNS), Prefetch.RUN),
    (Case(RUNS, is_old_spec=True), Prefetch.NONE),
    (Case(RUNS, is_suspended=True), Prefetch.NONE),
    (Case(RUNS, desired=1), Prefetch.RUN),
    (Case(RUNS, desired=1, pods=(LACKS_GPU,)), Prefetch.RUN),
    (Case(RUNS, desired=1, pods=(LACKS_NODE,)), Prefetch.RUN),
    (Case(RUNS, desired=1, pods=(LACKS_CPU,)), Prefetch.NONE),
    (Case(RUNS, desired=1, pods=(LACKS_CLAIM,)), Prefetch.NONE),
    (Case(RUNS, desired=2, pods=(LACKS_GPU, ON_NODE)), Prefetch.NONE),
]


@pytest.mark.parametrize(("case", "expected"), ROWS, ids=str)
def test_the_decision_follows_its_table(case: Case, expected: Prefetch) -> None:
    owner = SUSPENDED if case.is_suspended else SERVER
    job = JOB if case.is_used else None
    desired = DesiredReplicas(case.desired, "Idle", "")

    assert decide_prefetch(owner, observed(case), job, desired, NOW) is expected


def observed(case: Case) -> Observed:
    return Observed(
        children={},
        replica_pods=[*case.pods],
        balancer_pods=[],
        worker_pods=[],
        replicas=DEPLOYMENT,
        balancers=None,
        workers=[],
        replica_sets=[],
        prefetch_job=existing(case),
        inspection_job=None,
        inspection_pods=[],
        prefetch_pods=[],
        unlabelled={},
    )


def existing(case: Case) -> Manifest | None:
    if case.job is None:
        return None
    metadata = dict(JOB["metadata"])
    if case.is_old_spec:
        metadata["annotations"] = {names.TEMPLATE_HASH_ANNOTATION: "another"}
    if not case.is_owned:
        del metadata["ownerReferences"]
    return {**JOB, "metadata": metadata, "status": {"conditions": case.job}}
