"""kopf's configuration: it only watches, and writes nothing."""

import kopf
import pytest
from kopf._cogs.structs.references import Selector

from slotkeeper.kube.kinds import LEASES, LLAMA_SERVERS
from slotkeeper.reconcile.leader_election import LEASE_NAME, RETRY_SECONDS, WATCHED_WITHIN_SECONDS
from slotkeeper.reconcile.watch import kopf_watch


def registry() -> kopf.OperatorRegistry:
    return kopf_watch.registry(lambda _: None, lambda _: None)


def test_kopf_only_watches_so_that_it_writes_nothing_to_users_resources() -> None:
    handlers = registry()

    assert not handlers._changing.get_all_handlers()
    assert not handlers._spawning.get_all_handlers()
    watched = {handler.selector for handler in handlers._watching.get_all_handlers()}
    kinds = (LLAMA_SERVERS, LEASES)
    assert watched == {Selector(kind.group, kind.version, kind.plural) for kind in kinds}


def test_kopf_posts_no_events_and_joins_no_peers() -> None:
    settings = kopf_watch.settings()

    assert settings.posting.enabled is False
    assert settings.peering.standalone is True


def test_kopf_watches_only_the_operators_own_lease() -> None:
    watching = kopf_watch.settings().watching

    selected = watching.field_selectors[LEASES.group, LEASES.version, LEASES.plural]
    assert selected == f"metadata.name={LEASE_NAME}"
    assert not watching.label_selectors


@pytest.mark.parametrize("idle_timeout", [3.0, 70.0, 600.0])
def test_kopf_renews_an_idle_watch_before_the_operator_takes_it_as_stalled(
    idle_timeout: float,
) -> None:
    limit = kopf_watch.settings(idle_timeout).watching.inactivity_timeout

    assert limit is not None
    assert limit <= idle_timeout
    assert limit + 2 * RETRY_SECONDS < WATCHED_WITHIN_SECONDS
