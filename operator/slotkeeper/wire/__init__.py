"""HTTP/1.1 on asyncio: parsing, forwarding, back-pressure and limits. No policy."""
