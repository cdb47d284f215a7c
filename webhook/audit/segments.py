"""Files of records on disk: append only, each record framed, so that a torn end is noticed.

A frame is 16 bytes of head (length of the payload, CRC-32 of sequence number and payload, sequence
number; little-endian) and the payload.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAD = struct.Struct("<IIQ")
_SEQUENCE = struct.Struct("<Q")
LARGEST_PAYLOAD = 16 * 1024 * 1024
"""Bytes; a head that tells more is none."""


class Frame(NamedTuple):
    """A record as it stands in a file: its sequence number and its bytes."""

    sequence: int
    payload: bytes


def framed(sequence: int, payload: bytes) -> bytes:
    """Return a record with its head."""
    check = zlib.crc32(payload, zlib.crc32(_SEQUENCE.pack(sequence)))
    return HEAD.pack(len(payload), check, sequence) + payload


class Segment:
    """One file of records, numbered upwards.

    Attributes:
        path: The file; its name ends in the first sequence number.
        first, last: Sequence numbers; ``last`` is ``first - 1`` while the file is empty.
        count: How many records it has.
        size: Bytes, up to the end of the last whole record.
        damaged: Bytes at the end that are no record; 0 where all is well or the end is torn.
    """

    def __init__(self, path: Path, first: int) -> None:
        """Describe a file that has no record yet."""
        self.path = path
        self.first = first
        self.last = first - 1
        self.count = 0
        self.size = 0
        self.damaged = 0

    def add(self, sequence: int, length: int) -> None:
        """Note that a record was appended; ``length`` is that of its frame."""
        self.last = sequence
        self.count += 1
        self.size += length

    @classmethod
    def found(cls, path: Path) -> Segment:
        """Describe a file as a former process left it, cut to its last whole record.

        A process that was killed leaves at most one record that is not whole, at the end. If more
        than that cannot be read, something else harmed the file.

        Raises:
            OSError: It cannot be read or cut.
            ValueError: Its name has no sequence number.
        """
        segment = cls(path, int(path.stem.rpartition("-")[2]))
        content = path.read_bytes()
        torn = False
        for sequence, length in _whole(content):
            segment.add(sequence, length)
        left = len(content) - segment.size
        if left:
            torn = _is_torn(content[segment.size :])
            os.truncate(path, segment.size)
        segment.damaged = 0 if torn else left
        return segment


def _whole(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield sequence number and length of each frame, up to the first that is not whole."""
    at = 0
    while at + HEAD.size <= len(content):
        length, check, sequence = HEAD.unpack_from(content, at)
        end = at + HEAD.size + length
        if length > LARGEST_PAYLOAD or end > len(content):
            return
        payload = content[at + HEAD.size : end]
        if zlib.crc32(payload, zlib.crc32(_SEQUENCE.pack(sequence))) != check:
            return
        yield sequence, end - at
        at = end


def _is_torn(rest: bytes) -> bool:
    """Tell whether bytes are the beginning of a frame whose end is missing."""
    if len(rest) < HEAD.size:
        return True
    length: int = HEAD.unpack_from(rest)[0]
    return length <= LARGEST_PAYLOAD and HEAD.size + length > len(rest)


def all_frames(path: Path) -> Iterator[Frame]:
    """Yield each whole record of a file that a server may be writing.

    Raises:
        OSError: The file cannot be read.
    """
    content = path.read_bytes()
    at = 0
    for sequence, length in _whole(content):
        yield Frame(sequence, content[at + HEAD.size : at + length])
        at += length


def frames(path: Path, start: int, end: int) -> Iterator[tuple[Frame, int]]:
    """Yield each record between two offsets of a file, and the offset behind it.

    Both offsets stand between records, and what lies between them is known to be whole.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(start)
        at = start
        while at < end:
            length, _, sequence = HEAD.unpack(file.read(HEAD.size))
            payload = file.read(length)
            at += HEAD.size + length
            yield Frame(sequence, payload), at
