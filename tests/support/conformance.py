"""Requests as bytes: malformed ones to be rejected, and unusual ones to be served.

All are for /completion, so that any part of them that is read as a request reaches a replica.
"""

LINE = b"POST /completion HTTP/1.1\r\n"
HEAD = LINE + b"Host: a\r\n"
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
SMUGGLED = b"POST /completion HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nno"
"""A request that an attacker hides in another one."""


def coded(coding: bytes) -> bytes:
    """Return chunks under a Transfer-Encoding header; `coding`: the header from its colon on."""
    return HEAD + b"Transfer-Encoding" + coding + b"\r\n\r\n2\r\nhi\r\n" + END


def counted(length: bytes) -> bytes:
    """Return a body under a Content-Length header; `length`: the header from its colon on."""
    return HEAD + b"Content-Length" + length + b"\r\n\r\nhi"


def line(text: bytes) -> bytes:
    """Return a request with this request line."""
    return text + b"\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"


def header(text: bytes) -> bytes:
    """Return a request with this header line."""
    return HEAD + text + b"\r\nContent-Length: 2\r\n\r\nhi"


def host(*lines: bytes, version: bytes = b"1.1") -> bytes:
    """Return a request with these header lines in place of its Host header."""
    head = b"".join(each + b"\r\n" for each in lines)
    return b"POST /completion HTTP/%s\r\n%sContent-Length: 2\r\n\r\nhi" % (version, head)


def chunk(text: bytes) -> bytes:
    """Return a request whose chunked body begins with this."""
    return CHUNKS + text + END


REJECTED: dict[str, tuple[int, bytes]] = {
    # Two lengths: classic request smuggling.
    "length, then chunks": (
        400,
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + END + SMUGGLED,
    ),
    "chunks, then length": (
        400,
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + END + SMUGGLED,
    ),
    "one length twice": (400, counted(b": 2\r\nContent-Length: 2")),
    "two lengths": (400, counted(b": 2\r\nContent-Length: 60") + SMUGGLED),
    "two lengths in a list": (400, counted(b": 2, 60") + SMUGGLED),
    "one length twice in a list": (400, counted(b": 2, 2")),
    # CGI and WSGI read an underscore as a hyphen.
    "a header named almost like Content-Length": (400, header(b"Content_Length: 60")),
    "a header named almost like X-Api-Key": (400, header(b"X_Api_Key: one")),
    # Invalid lengths.
    "a length with plus": (400, counted(b": +2")),
    "a length with minus": (400, counted(b": -2")),
    "a length with a space in it": (400, counted(b": 2 2")),
    "a length in hexadecimal": (400, counted(b": 0x2")),
    "a length with an underscore": (400, counted(b": 1_0")),
    "a length with a point": (400, counted(b": 2.0")),
    "a length in quotes": (400, counted(b': "2"')),
    "a length over 64 bits": (400, counted(b": 18446744073709551618")),
    "a length of thousands of digits": (400, counted(b": " + b"0" * 5000 + b"2")),
    "an empty length": (400, counted(b":")),
    "a length and a space before its colon": (400, counted(b" : 2")),
    "a length in a folded line": (400, counted(b":\r\n 2")),
    "the greatest length": (413, counted(b": 18446744073709551615")),
    # Codings that implementations parse differently.
    "coding identity": (400, coded(b": identity")),
    "coding identity, chunked": (400, coded(b": identity, chunked")),
    "coding chunked, identity": (400, coded(b": chunked, identity")),
    "coding gzip, chunked": (400, coded(b": gzip, chunked")),
    "coding xchunked": (400, coded(b": xchunked")),
    "coding chunkedx": (400, coded(b": chunkedx")),
    "coding chunked, chunked": (400, coded(b": chunked, chunked")),
    "coding chunked twice": (400, coded(b": chunked\r\nTransfer-Encoding: chunked")),
    "coding chunked, then identity": (400, coded(b": chunked\r\nTransfer-Encoding: identity")),
    "coding with a vertical tab": (400, coded(b": \x0bchunked")),
    "coding with a NUL": (400, coded(b": chunked\x00")),
    "coding with a parameter": (400, coded(b": chunked;q=1")),
    "coding in quotes": (400, coded(b': "chunked"')),
    "coding after a comma": (400, coded(b": ,chunked")),
    "coding before a comma": (400, coded(b": chunked,")),
    "coding before a tab": (400, coded(b": chunked\t")),
    "coding in a folded line": (400, coded(b":\r\n chunked")),
    "coding and a space before its colon": (400, coded(b" : chunked")),
    "no coding": (400, coded(b":")),
    "no coding and a length": (400, coded(b":\r\nContent-Length: 2")),
    "chunks in HTTP/1.0": (
        400,
        b"POST /completion HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    ),
    # Line ends.
    "bare LF after the request line": (400, b"POST /completion HTTP/1.1\nHost: a\r\n\r\n"),
    "bare LF after a header": (400, header(b"X: a\nY: b")),
    "bare LF at the end of the head": (400, HEAD + b"Content-Length: 2\r\n\nhi"),
    "bare LF throughout": (400, b"POST /completion HTTP/1.1\nHost: a\n\n"),
    "bare LF after a chunk's size": (400, chunk(b"2\nhi\r\n")),
    "bare LF after a chunk's extension": (400, chunk(b"2;a=b\nhi\r\n")),
    "bare LF in a chunk's extension": (400, chunk(b"2;a\nb\r\nhi\r\n")),
    "bare LF after a chunk": (400, chunk(b"2\r\nhi\n")),
    "bare LF after the last chunk": (400, CHUNKS + b"0\n\r\n"),
    "bare LF as the empty line after chunks": (400, CHUNKS + b"0\r\n\n"),
    "bare LF after a trailer": (400, CHUNKS + b"0\r\nX: y\n\r\n"),
    "bare CR in the request line": (400, line(b"POST /completion\r HTTP/1.1")),
    "bare CR after the request line": (400, b"POST /completion HTTP/1.1\rHost: a\r\n\r\n"),
    "bare CR in a header": (400, header(b"X: a\rb")),
    "bare CR after a header": (400, header(b"X: a\rY: b")),
    "two CRs after a header": (400, header(b"X: a\r")),
    "bare CR in a chunk's size": (400, chunk(b"2\rhi\r\n")),
    "bare CR in a chunk's extension": (400, chunk(b"2;a\rb\r\nhi\r\n")),
    # Characters.
    "NUL in a value": (400, header(b"X: a\x00b")),
    "BEL in a value": (400, header(b"X: a\x07b")),
    "ESC in a value": (400, header(b"X: a\x1bb")),
    "DEL in a value": (400, header(b"X: a\x7fb")),
    "NUL in a name": (400, header(b"X\x00: a")),
    "DEL in a name": (400, header(b"X\x7f: a")),
    "a non-ASCII letter in a name": (400, header(b"X-\xc3\xa9: a")),
    "a space in a name": (400, header(b"X Y: a")),
    "a quote in a name": (400, header(b'X"Y: a')),
    "a bracket in a name": (400, header(b"X(Y: a")),
    "NUL in the target": (400, line(b"POST /completion\x00 HTTP/1.1")),
    "BEL in the target": (400, line(b"POST /completion\x07 HTTP/1.1")),
    "a tab in the target": (400, line(b"POST /completion\tx HTTP/1.1")),
    "a form feed in the target": (400, line(b"POST /completion\x0cx HTTP/1.1")),
    "DEL in the target": (400, line(b"POST /completion\x7f HTTP/1.1")),
    "a non-ASCII letter in the target": (400, line(b"POST /completion?\xc3\xa9 HTTP/1.1")),
    "a space in the target": (400, line(b"POST /completion ?x HTTP/1.1")),
    # Header lines.
    "a space before a colon": (400, header(b"X : a")),
    "a tab before a colon": (400, header(b"X\t: a")),
    "a header without a name": (400, header(b": a")),
    "a header without a colon": (400, header(b"X")),
    "a folded header": (400, header(b"X: a\r\n b")),
    "a header folded with a tab": (400, header(b"X: a\r\n\tb")),
    "a header folded over nothing": (400, header(b"X: a\r\n ")),
    "a first header after a space": (400, LINE + b" Host: a\r\nContent-Length: 2\r\n\r\nhi"),
    "a first header after a tab": (400, LINE + b"\tHost: a\r\nContent-Length: 2\r\n\r\nhi"),
    # Host.
    "no host": (400, host()),
    "two hosts": (400, host(b"Host: a", b"Host: b")),
    "one host twice": (400, host(b"Host: a", b"hOST: a")),
    "two hosts in HTTP/1.0": (400, host(b"Host: a", b"Host: b", version=b"1.0")),
    "two hosts in a list": (400, host(b"Host: a, b")),
    "a space in the host": (400, host(b"Host: a b")),
    "a path in the host": (400, host(b"Host: a/b")),
    "a user in the host": (400, host(b"Host: u@a")),
    "a port that is no number": (400, host(b"Host: a:b")),
    "a non-ASCII letter in the host": (400, host(b"Host: \xc3\xa9")),
    "a host in the target and another in the header": (
        400,
        line(b"POST http://b/completion HTTP/1.1"),
    ),
    "a user in the target": (400, line(b"POST http://u@a/completion HTTP/1.1")),
    "a target with an empty host": (400, line(b"POST http:///completion HTTP/1.1")),
    # Request lines.
    "a fragment": (400, line(b"POST /completion#x HTTP/1.1")),
    "a fragment after a query": (400, line(b"POST /completion?x#y HTTP/1.1")),
    "a target without a slash": (400, line(b"POST completion HTTP/1.1")),
    "a backslash for a slash": (400, line(b"POST \\completion HTTP/1.1")),
    "no target": (400, line(b"POST  HTTP/1.1")),
    "a star for a target": (400, line(b"POST * HTTP/1.1")),
    "another scheme": (400, line(b"POST ftp://a/completion HTTP/1.1")),
    "tabs in the request line": (400, line(b"POST\t/completion\tHTTP/1.1")),
    "a space after the version": (400, line(b"POST /completion HTTP/1.1 ")),
    "a space before the method": (400, line(b" POST /completion HTTP/1.1")),
    "a method in lower case": (400, line(b"post /completion HTTP/1.1")),
    "an unknown method": (400, line(b"NONSENSE /completion HTTP/1.1")),
    "RTSP's method": (400, line(b"DESCRIBE /completion HTTP/1.1")),
    "a byte order mark": (400, line(b"\xef\xbb\xbfPOST /completion HTTP/1.1")),
    "HTTP/0.9": (400, b"GET /completion\r\n\r\n"),
    "HTTP/0.9 by name": (400, line(b"POST /completion HTTP/0.9")),
    "HTTP/1.2": (400, line(b"POST /completion HTTP/1.2")),
    "HTTP/1.10": (400, line(b"POST /completion HTTP/1.10")),
    "HTTP/01.1": (400, line(b"POST /completion HTTP/01.1")),
    "HTTP/2.0": (400, line(b"POST /completion HTTP/2.0")),
    "http in lower case": (400, line(b"POST /completion http/1.1")),
    "HTTPS for a version": (400, line(b"POST /completion HTTPS/1.1")),
    "HTTP/2's preface": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00"),
    "TLS": (400, b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(range(64))),
    "a response": (400, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "CONNECT": (400, b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n" + SMUGGLED),
    "CONNECT to a path": (400, b"CONNECT /completion HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED),
    # Chunks.
    "a chunk's size with a space": (400, chunk(b"2 \r\nhi\r\n")),
    "a chunk's size with a tab": (400, chunk(b"2\t\r\nhi\r\n")),
    "a chunk's size after a space": (400, chunk(b" 2\r\nhi\r\n")),
    "a chunk's size with 0x": (400, chunk(b"0x2\r\nhi\r\n")),
    "a chunk's size with minus": (400, chunk(b"-2\r\nhi\r\n")),
    "a chunk's size with plus": (400, chunk(b"+2\r\nhi\r\n")),
    "a chunk without a size": (400, chunk(b"\r\nhi\r\n")),
    "a chunk with an extension for a size": (400, chunk(b";a\r\nhi\r\n")),
    "a chunk's size that is no number": (400, chunk(b"g\r\nhi\r\n")),
    "a chunk's size over 64 bits": (400, chunk(b"10000000000000002\r\nhi\r\n")),
    "a chunk longer than its size": (400, chunk(b"1\r\nhi\r\n")),
    "a chunk shorter than its size": (400, chunk(b"5\r\nhi\r\n")),
    "an extension after a space": (400, chunk(b"2 ;a=b\r\nhi\r\n")),
    "NUL in an extension": (400, chunk(b"2;a\x00b\r\nhi\r\n")),
    "an open quote in an extension": (400, chunk(b'2;a="b\r\nhi\r\n')),
    "a trailer with a space before its colon": (400, CHUNKS + b"0\r\nX : y\r\n\r\n"),
    "a folded trailer": (400, CHUNKS + b"0\r\nX: y\r\n z\r\n\r\n"),
    "a length for a trailer": (400, CHUNKS + b"0\r\nContent-Length: 5\r\n\r\n"),
    "a coding for a trailer": (400, CHUNKS + b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    # Sizes.
    "too many headers": (431, HEAD + b"X: y\r\n" * 200 + b"\r\n"),
    "thousands of headers": (431, HEAD + b"X: y\r\n" * 20_000 + b"\r\n"),
    "a header too large": (431, header(b"X: " + b"x" * 40_000)),
    "a name too large": (431, header(b"X" * 40_000 + b": x")),
    "a target too large": (431, line(b"POST /completion?" + b"x" * 40_000 + b" HTTP/1.1")),
    "a target without an end": (431, b"POST /completion?" + b"x" * 400_000),
    "a header without an end": (431, HEAD + b"X: " + b"x" * 400_000),
    "trailers too large": (431, CHUNKS + b"0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n"),
    "an extension without an end": (431, CHUNKS + b"2;a=" + b"x" * 400_000),
    # Others.
    "an unknown Expect": (417, header(b"Expect: tea")),
    "two Expects": (417, header(b"Expect: 100-continue\r\nExpect: tea")),
    "a list of Expects": (417, header(b"Expect: 100-continue, tea")),
}
"""The expected status, and the bytes, which must end their connection and reach no replica."""

SERVED: dict[str, bytes] = {
    "a length": counted(b": 2"),
    "a length after a tab and before spaces": counted(b":\t2  "),
    "a length with leading zeros": counted(b": 0002"),
    "no body": HEAD + b"\r\n",
    "chunks": coded(b": chunked"),
    "chunks in upper case": coded(b": CHUNKED"),
    "chunks after a tab and before a space": coded(b":\tchunked "),
    "a chunk's size with leading zeros": chunk(b"0002\r\nhi\r\n"),
    "a last chunk of several zeros": CHUNKS + b"2\r\nhi\r\n000\r\n\r\n",
    "extensions": chunk(b'2;a=b;c;d="e;f"\r\nhi\r\n'),
    "trailers": CHUNKS + b"2\r\nhi\r\n0\r\nHost: b\r\nX: y\r\nConnection: upgrade\r\n\r\n",
    "an upgrade offer of HTTP/2": header(
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"
    ),
    "an upgrade offer of HTTP/2 with chunks": coded(
        b": chunked\r\nConnection: upgrade\r\nUpgrade: h2c"
    ),
    "an upgrade offer whose body looks like a request": HEAD
    + b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: %d\r\n\r\n" % len(SMUGGLED)
    + SMUGGLED,
    "an upgrade offer that Connection does not name": header(b"Upgrade: h2c"),
    "the host in the target too": line(b"POST http://A/completion HTTP/1.1"),
    "the host in the target of HTTP/1.0": b"POST http://a/completion HTTP/1.0\r\n\r\n",
    "HTTP/1.0 without a host": b"POST /completion HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi",
    "HTTP/1.0 with keep-alive": b"POST /completion HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "an empty host": host(b"Host:"),
    "a host with a port": host(b"Host: a-b_c.example:8080"),
    "a host by its IPv6 address": host(b"Host: [::1]:8080"),
    "non-ASCII letters in a value": header(b"X: \xc3\xa9"),
    "a tab in a value": header(b"X: a\tb"),
    "an empty value": header(b"X:"),
    "a name with every character that a name may have": header(b"!#$%&'*+-.^`|~09aZ: x"),
    "a Connection that names the host": header(b"Connection: Host, X\r\nX: y"),
    "a query with every character that it may have": line(
        b"POST /completion?a=b&c;d=%20/?:@!$'()*+, HTTP/1.1"
    ),
    "Expect": header(b"Expect: 100-continue"),
    "empty lines before": b"\r\n\r\n" + counted(b": 2"),
    "two spaces in the request line": line(b"POST  /completion  HTTP/1.1"),
    "close": header(b"Connection: close"),
    "close and keep-alive": header(b"Connection: keep-alive, close"),
}
"""Bytes of one request each, which is proxied."""
