"""HTTP/1.1 as bytes on asyncio: parse, forward, back-pressure, limits; it knows no policy."""
