"""Parts of an HTTP proxy above the wire: API keys, routes, CORS, access log, SSE, token usage."""
