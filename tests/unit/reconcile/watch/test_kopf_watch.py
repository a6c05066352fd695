"""What kopf is asked to do, and not to do."""

import kopf
import pytest
from kopf._cogs.structs.references import Selector

from slotkeeper.kube.kinds import LEASES, LLAMA_SERVERS
from slotkeeper.reconcile.leader_election import LEASE_NAME, RETRY_SECONDS, WATCHED_WITHIN_SECONDS
from slotkeeper.reconcile.watch import kopf_watch


def registry() -> kopf.OperatorRegistry:
    return kopf_watch.registry(lambda _: None, lambda _: None)


def test_kopf_only_watches_so_that_it_writes_nothing_to_users_resources() -> None:
    handling = registry()

    assert not handling._changing.get_all_handlers()
    assert not handling._spawning.get_all_handlers()
    watched = {handler.selector for handler in handling._watching.get_all_handlers()}
    kinds = (LLAMA_SERVERS, LEASES)
    assert watched == {Selector(kind.group, kind.version, kind.plural) for kind in kinds}


def test_kopf_posts_no_events_and_joins_no_peers() -> None:
    settings = kopf_watch.settings()

    assert settings.posting.enabled is False
    assert settings.peering.standalone is True


def test_of_all_leases_kopf_is_shown_the_operators_own() -> None:
    watching = kopf_watch.settings().watching

    selected = watching.field_selectors[LEASES.group, LEASES.version, LEASES.plural]
    assert selected == f"metadata.name={LEASE_NAME}"
    assert not watching.label_selectors


@pytest.mark.parametrize("silence", [3.0, 70.0, 600.0])
def test_kopf_goes_on_with_a_new_stream_before_a_silent_one_ends_the_operator(
    silence: float,
) -> None:
    bound = kopf_watch.settings(silence).watching.inactivity_timeout

    assert bound is not None
    assert bound <= silence
    assert bound + 2 * RETRY_SECONDS < WATCHED_WITHIN_SECONDS
