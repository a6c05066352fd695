"""Sets up features that are off by default. To be called before the proxy has replicas."""

from slotkeeper.balancer.priming.options import PrimingOptions
from slotkeeper.balancer.priming.priming import Priming
from slotkeeper.balancer.proxy.proxy import Proxy
from slotkeeper.balancer.upstream.speculation import Speculation


def prime_replicas(proxy: Proxy, options: PrimingOptions) -> Priming:
    """Compute beginnings of prompts on new replicas. To be called after keep_prompts."""
    files = proxy.prompts.files if proxy.prompts else None
    priming = Priming(proxy.dispatcher, proxy.metrics.add_priming(), options, files)
    proxy.priming = priming
    proxy.replicas.prime = priming.prime
    if options.learned:
        proxy.on_accepted = lambda request: priming.learn(
            request.exchange.request, request.queued.prefixes
        )
    return priming


def report_speculation(proxy: Proxy) -> None:
    """Report whether replicas decode speculatively, and how many guesses are right."""
    proxy.speculation = Speculation(proxy.replicas, proxy.aggregate, proxy.spawn, proxy.now)
    proxy.metrics.add_speculation(proxy.speculation.guesses)
