"""Sets up priming."""

from slotkeeper.balancer.priming.options import PrimingOptions
from slotkeeper.balancer.priming.priming import Priming
from slotkeeper.balancer.proxy.proxy import Proxy


def prime_replicas(proxy: Proxy, options: PrimingOptions) -> Priming:
    """Compute beginnings of prompts on new replicas. To be called first, after keep_prompts."""
    files = proxy.prompts.files if proxy.prompts else None
    priming = Priming(proxy.dispatcher, proxy.metrics.add_priming(), options, files)
    proxy.priming = priming
    proxy.replicas.prime = priming.prime
    if options.learned:
        proxy.on_accepted = lambda request: priming.learn(
            request.exchange.request, request.queued.prefixes
        )
    return priming
