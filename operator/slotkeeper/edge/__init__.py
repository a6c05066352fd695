"""What the balancer and a gateway share above the wire: keys, routes, CORS, logs, SSE."""
