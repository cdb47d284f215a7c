"""Where a request ends is never in doubt: bytes in, requests out, without a network."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.serving import request_reader
from webhook.serving.request_reader import NotHttp, RequestReader

HEAD = b"POST /validate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"
SIZED = HEAD + b"Content-Length: 2\r\n"
SMUGGLED = b"POST /mutate HTTP/1.1\r\nHost: localhost\r\n\r\n"
CLOSING = b"Connection: close\r\n"


def read(*pieces):
    """Return what was read, and whether it could all be read."""
    reader = RequestReader(lambda: (0.0, False))
    try:
        for piece in pieces:
            reader.read(memoryview(piece))
    except NotHttp:
        return reader, False
    return reader, True


def found(reader):
    return [
        (one.head.target.path, one.take_body(), one.complete, sorted(one.head.headers))
        for one in reader.requests
    ]


def one_by_one(data):
    return [data[i : i + 1] for i in range(len(data))]


FRAMED = {
    "a length": SIZED + b"\r\n{}",
    "a length among blanks": HEAD + b"Content-Length:  2  \r\n\r\n{}",
    "chunks": CHUNKED + b"\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks in capitals": CHUNKED.replace(b"chunked", b"CHUNKED") + b"\r\n2\r\n{}\r\n0\r\n\r\n",
    "extensions": CHUNKED + b'\r\n2;a=b;c="d;e"\r\n{}\r\n0;f\r\n\r\n',
    "leading zeros": CHUNKED + b"\r\n" + b"0" * 40 + b"2\r\n{}\r\n0\r\n\r\n",
    "a trailer": CHUNKED + b"\r\n2\r\n{}\r\n0\r\nHost: other\r\nX-Sum: 1\r\n\r\n",
    "blank lines before it": b"\r\n\r\n" + SIZED + b"\r\n{}",
    "another name for the length": SIZED + b"Content_Length: 50\r\n\r\n{}",
}


@pytest.mark.parametrize("data", FRAMED.values(), ids=FRAMED)
@pytest.mark.parametrize("cut", [lambda data: [data], one_by_one], ids=["at once", "by bytes"])
def test_what_follows_a_request_is_the_next_one(data, cut):
    reader, understood = read(*cut(data + SMUGGLED))

    assert understood
    first, second = found(reader)
    assert first[:3] == ("/validate", b"{}", True)
    # Nothing of a trailer is taken for a header, of this request or of the next.
    assert "x-sum" not in str(first)
    assert second == ("/mutate", b"", True, [b"host"])


IN_DOUBT = {
    "chunks and a length": CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "a length and chunks": SIZED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a length and no coding": SIZED + b"Transfer-Encoding: identity\r\n\r\n{}",
    "a length and an empty coding": SIZED + b"Transfer-Encoding: \r\n\r\n{}",
    "the same length twice": SIZED + b"Content-Length: 2\r\n\r\n{}",
    "two lengths": SIZED + b"Content-Length: 0\r\n\r\n{}",
    "a list of lengths": HEAD + b"Content-Length: 2,2\r\n\r\n{}",
    "a hexadecimal length": HEAD + b"Content-Length: 0x2\r\n\r\n{}",
    "a length in two parts": HEAD + b"Content-Length: 0 2\r\n\r\n{}",
    "a length beyond 64 bits": HEAD + b"Content-Length: %d\r\n\r\n{}" % (2**64 + 2),
    "a blank before the colon": HEAD + b"Content-Length : 2\r\n\r\n{}",
    "a folded length": HEAD + b"Content-Length:\r\n 2\r\n\r\n{}",
    "a folded coding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a fold after the request line": SIZED.replace(b"Host", b" Host") + b"\r\n{}",
    "a coding after a control character": HEAD + b"Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n",
    "a coding and a comma": HEAD + b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
    "line feeds alone": (SIZED + b"\r\n").replace(b"\r\n", b"\n") + b"{}",
    "a header that ends in a line feed": HEAD + b"X: a\nContent-Length: 2\r\n\r\n{}",
    "a header that ends in a carriage return": HEAD + b"X: a\rContent-Length: 2\r\n\r\n{}",
    "a head that ends in a line feed": SIZED + b"\n{}",
    "a head that ends in a carriage return": SIZED + b"\r{}",
    "a name with a zero byte": SIZED + b"X\0: a\r\n\r\n{}",
    "no name": SIZED + b": a\r\n\r\n{}",
    "a chunk size and a line feed": CHUNKED + b"\r\n2\n{}\r\n0\r\n\r\n",
    "a chunk size and a carriage return": CHUNKED + b"\r\n2\r{}\r\n0\r\n\r\n",
    "a chunk size and a blank": CHUNKED + b"\r\n2 \r\n{}\r\n0\r\n\r\n",
    "a blank and a chunk size": CHUNKED + b"\r\n 2\r\n{}\r\n0\r\n\r\n",
    "a chunk size with a sign": CHUNKED + b"\r\n+2\r\n{}\r\n0\r\n\r\n",
    "a negative chunk size": CHUNKED + b"\r\n-2\r\n{}\r\n0\r\n\r\n",
    "a chunk size that says hexadecimal": CHUNKED + b"\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk size with an underscore": CHUNKED + b"\r\n2_0\r\n{}\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": CHUNKED + b"\r\n10000000000000002\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than its size": CHUNKED + b"\r\n1\r\n{}\r\n0\r\n\r\n",
    "a chunk that ends in a line feed": CHUNKED + b"\r\n2\r\n{}\n0\r\n\r\n",
    "a line feed in an extension": CHUNKED + b"\r\n2;a\n0\r\n\r\n",
    "a line end in a quoted extension": CHUNKED + b'\r\n2;a="\r\n{}\r\n0\r\n\r\n',
    "a zero byte in an extension": CHUNKED + b"\r\n2;a=\0\r\n{}\r\n0\r\n\r\n",
    "a length in the trailer": CHUNKED + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a coding in the trailer": CHUNKED + b"\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a fold in the trailer": CHUNKED + b"\r\n0\r\nX: a\r\n b\r\n\r\n",
    "a line feed in the trailer": CHUNKED + b"\r\n0\r\nX: a\n\r\n",
    "a trailer that ends in a line feed": CHUNKED + b"\r\n0\r\n\n",
}


@pytest.mark.parametrize("data", IN_DOUBT.values(), ids=IN_DOUBT)
@pytest.mark.parametrize("cut", [lambda data: [data], one_by_one], ids=["at once", "by bytes"])
def test_a_request_whose_end_is_in_doubt_is_not_read(data, cut):
    reader, understood = read(*cut(data + SMUGGLED))

    assert not understood
    assert not any(complete for _, _, complete, _ in found(reader))


LAST = {
    "the client closes": SIZED + CLOSING + b"\r\n{}",
    "the client closes, and says so twice": SIZED + CLOSING * 2 + b"\r\n{}",
    "HTTP/1.0": SIZED.replace(b"/1.1", b"/1.0") + b"\r\n{}",
    "HTTP/1.0, kept": SIZED.replace(b"/1.1", b"/1.0") + b"Connection: keep-alive\r\n\r\n{}",
    "another protocol": SIZED + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "a tunnel": b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an unknown coding": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "no host": SIZED.replace(b"Host: localhost\r\n", b"") + b"\r\n{}",
}


@pytest.mark.parametrize("data", LAST.values(), ids=LAST)
@pytest.mark.parametrize("cut", [lambda data: [data], one_by_one], ids=["at once", "by bytes"])
@pytest.mark.parametrize("more", [SMUGGLED, b"\x00 nonsense"], ids=["a request", "nonsense"])
def test_nothing_is_read_behind_the_last_request(data, cut, more):
    reader, understood = read(*cut(data + more))

    assert understood
    assert [complete for _, _, complete, _ in found(reader)] == [True]


@given(
    names=st.lists(st.sampled_from(sorted(FRAMED)), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 600), max_size=6),
)
def test_requests_are_the_same_however_their_bytes_are_cut(names, cuts):
    data = b"".join(FRAMED[name] for name in names)
    at = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(at)]
    in_pieces, understood = read(*pieces)

    assert understood
    assert found(in_pieces) == found(read(data)[0])


def test_a_head_is_refused_before_it_grows_without_end():
    assert read(HEAD, *[b"X" * 1024] * 60)[1]
    assert not read(HEAD, *[b"X" * 1024] * 66)[1]


@pytest.mark.parametrize("beside", [b"0\r\nX: ", b"1;"], ids=["trailer", "chunk extension"])
def test_what_stands_beside_a_body_is_refused_before_it_grows_without_end(beside):
    begun = CHUNKED + b"\r\n2\r\n{}\r\n" + beside
    assert read(begun, *[b"x" * 1024] * 64)[1]
    assert not read(begun, *[b"x" * 1024] * 65)[1]


def test_chunks_that_are_small_beside_their_extensions_are_read_as_long_as_they_come():
    chunk = b"1;" + b"x" * 1024 + b"\r\n \r\n"
    reader, understood = read(CHUNKED + b"\r\n", *[chunk] * 200, b"0\r\n\r\n")

    assert understood
    assert found(reader)[0][1] == b" " * 200


def test_a_large_body_ahead_of_a_head_is_not_counted_as_part_of_it():
    large = HEAD + b"Content-Length: 65000\r\n\r\n" + bytes(65_000)
    _, understood = read(large + SIZED[:20], SIZED[20:] + b"X: " + bytes(b"x" * 60_000))

    assert understood


def test_a_fault_of_our_own_is_logged_and_what_a_client_sends_wrong_is_not(monkeypatch, caplog):
    assert not read(b"nonsense\r\n\r\n")[1]
    assert not read(HEAD + b"a: b\r\n" * 100)[1]
    assert caplog.messages == []

    def fail(url):
        raise RuntimeError("broken")

    monkeypatch.setattr(request_reader, "target_of", fail)
    assert not read(SIZED + b"\r\n{}")[1]
    (line,) = caplog.messages
    logged = json.loads(line)
    assert (logged["message"], logged["error"]) == ("a request could not be read", "RuntimeError")


def test_as_many_requests_wait_as_there_is_room_for_and_no_more():
    assert read(SMUGGLED * 17)[1]
    assert not read(SMUGGLED * 18)[1]
