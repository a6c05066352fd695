"""What kopf is asked to do, and not to do."""

import kopf
from kopf._cogs.structs.references import Selector

from llamaservers import server
from slotkeeper.desired import balancer
from slotkeeper.kube.kinds import CHILDREN, LEASES, LLAMA_SERVERS, PODS
from slotkeeper.reconcile import handlers


def registry() -> kopf.OperatorRegistry:
    return handlers.registry(lambda *_: None, lambda _: None, lambda _: None)


def test_kopf_only_watches_so_that_it_writes_nothing_to_users_resources() -> None:
    handling = registry()

    assert not handling._changing.get_all_handlers()
    assert not handling._spawning.get_all_handlers()
    watched = {handler.selector for handler in handling._watching.get_all_handlers()}
    kinds = (LLAMA_SERVERS, PODS, *CHILDREN)
    assert watched == {Selector(kind.group, kind.version, kind.plural) for kind in kinds}


def test_kopf_posts_no_events_and_joins_no_peers() -> None:
    settings = handlers.settings()

    assert settings.posting.enabled is False
    assert settings.peering.standalone is True


def test_children_come_in_by_label_and_leases_by_one_that_the_operators_own_has_too() -> None:
    watching = handlers.settings().watching

    for kind in {PODS, *CHILDREN} - {LEASES}:
        selected = watching.label_selectors[kind.group, kind.version, kind.plural]
        assert selected == "slotkeeper.dev/server"
    leases = watching.label_selectors[LEASES.group, LEASES.version, LEASES.plural]
    label, _, value = leases.partition("=")
    assert balancer.lease(server())["metadata"]["labels"][label] == value
    # kopf has one watch a kind: a selector by name would hide the balancers' Leases.
    assert not watching.field_selectors
