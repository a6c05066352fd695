"""Folders of prompts on claims, which are removed when their server no longer uses them.

Each has a suspended Job: see `desired.prompt_cleanup`.

| the Job is of                              | and it is | then it is                 |
|---|---|---|
| the server's folder, with the desired name | suspended | kept                       |
|                                            | ended     | deleted, and created again |
| the server's folder, with another name     | any       | deleted: an older template |
| a folder that no server and no pod uses    | suspended | resumed; deleted if its    |
|                                            |           | claim does not exist       |
| a folder that only a pod uses              | suspended | kept until the pod ends    |

A Job that is running or has ended, of a folder that is not in use, is left to its time to live.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from slotkeeper.desired import names, prompt_volume
from slotkeeper.kube.cluster import UNREADABLE, Cluster, Manifest
from slotkeeper.kube.kinds import JOBS, LLAMA_SERVERS, PERSISTENT_VOLUME_CLAIMS
from slotkeeper.kube.objects import Child, Key, child, with_precondition
from slotkeeper.reconcile.watch.store import Store

_ENDED = {"Succeeded", "Failed"}
"""Phases of pods whose containers never run again."""


class FolderRef(NamedTuple):
    """A folder on a claim of a namespace."""

    claim: str
    uid: str
    """Of its server."""


@dataclass(frozen=True)
class PromptFolders:
    """Removes the folders of one server after the other."""

    cluster: Cluster
    store: Store

    async def clean_up(
        self, key: Key, children: Mapping[Child, Manifest], desired: Manifest | None = None
    ) -> bool:
        """Resume or delete the Jobs of a server among these objects; `desired`: the one that it has
        to have, if any.

        Returns whether one was deleted, so that another may have to be created. Raises ApiError.
        """
        deleted = False
        jobs = jobs_of_folders(children)
        pods = self.store.pods(key) if jobs else []
        in_use = {each for pod in pods if (each := _used_by(pod))}
        for job in jobs:
            if desired and folder_of(job) == folder_of(desired):
                if child(job) != child(desired) or has_ended(job):
                    await self._delete(job)
                    deleted = True
            elif job["spec"].get("suspend") and folder_of(job) not in in_use:
                await self._resume(key, job)
        return deleted

    async def _delete(self, job: Manifest) -> None:
        metadata = job["metadata"]
        await self.cluster.delete(JOBS, metadata["namespace"], metadata["name"], metadata["uid"])
        self.store.confirm_deleted(job)

    async def _resume(self, key: Key, job: Manifest) -> None:
        # The store may not have a new server yet. Nothing can bring the prompts back.
        raw = await self.cluster.get(LLAMA_SERVERS, *key)
        if raw and "deletionTimestamp" not in raw["metadata"] and _uses(raw, folder_of(job)):
            return
        found = await self.cluster.get(JOBS, key.namespace, job["metadata"]["name"])
        if found is None or UNREADABLE in found or found["metadata"]["uid"] != _uid(job):
            return
        claim = await self.cluster.get(
            PERSISTENT_VOLUME_CLAIMS, key.namespace, folder_of(found).claim
        )
        if claim is None or "deletionTimestamp" in claim["metadata"]:
            # There are no files, and its pod would wait for the claim.
            await self._delete(found)
            return
        metadata = {name: found["metadata"][name] for name in ("name", "namespace", "labels")}
        # If the server uses the folder again, this was no change by others.
        metadata["annotations"] = {names.APPLIED_HASH_ANNOTATION: "resumed"}
        # As it is: its template is immutable, and may be of an older release.
        resumed = {
            **{name: found[name] for name in ("apiVersion", "kind")},
            "metadata": metadata,
            "spec": {**found["spec"], "suspend": False},
        }
        self.store.put(await self.cluster.apply(with_precondition(resumed, found)))


def jobs_of_folders(children: Mapping[Child, Manifest]) -> list[Manifest]:
    """Return the Jobs among these objects that remove a folder, in the order of their names."""
    found = [
        item
        for (kind, _), item in children.items()
        if kind == JOBS
        and UNREADABLE not in item
        and names.PROMPT_FOLDER_LABEL in (item["metadata"].get("labels") or {})
        and not item["metadata"].get("ownerReferences")
        and "deletionTimestamp" not in item["metadata"]
    ]
    return sorted(found, key=lambda item: str(item["metadata"]["name"]))


def folder_of(job: Manifest) -> FolderRef:
    """Return the folder that a Job removes."""
    claim = _claim(job["spec"]["template"]["spec"])
    return FolderRef(claim or "", job["metadata"]["labels"][names.PROMPT_FOLDER_LABEL])


def has_ended(job: Manifest) -> bool:
    """Whether a Job has removed the folder, or given up."""
    conditions = job.get("status", {}).get("conditions") or ()
    return any(
        each["type"] in {"Complete", "Failed"} and each["status"] == "True" for each in conditions
    )


def _uses(raw: Manifest, folder: FolderRef) -> bool:
    cache = (raw.get("spec") or {}).get("promptCache") or {}
    return (cache.get("claimName"), raw["metadata"]["uid"]) == tuple(folder)


def _used_by(pod: Manifest) -> FolderRef | None:
    """The folder that a pod of a replica mounts."""
    claim = _claim(pod["spec"])
    if claim is None or pod.get("status", {}).get("phase") in _ENDED:
        return None
    containers: Iterable[Manifest] = pod["spec"]["containers"]
    for container in containers:
        for mount in container.get("volumeMounts") or ():
            if mount["name"] == prompt_volume.VOLUME and "subPath" in mount:
                return FolderRef(claim, mount["subPath"])
    return None


def _claim(pod: Manifest) -> str | None:
    for volume in pod.get("volumes") or ():
        if volume["name"] == prompt_volume.VOLUME and "persistentVolumeClaim" in volume:
            return str(volume["persistentVolumeClaim"]["claimName"])
    return None


def _uid(item: Manifest) -> str:
    return str(item["metadata"]["uid"])
