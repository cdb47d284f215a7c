"""Files of records on disk: append only, each record framed, so that damage is noticed.

A frame is 16 bytes of head (length of the payload, CRC-32 of sequence number and payload, sequence
number; little-endian) and the payload.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import uuid
import zlib
from typing import TYPE_CHECKING, NamedTuple

from webhook.audit.importance import Importance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAD = struct.Struct("<IIQ")
TAG_LENGTH = 12
LONGEST_WRITER = 80
_SEQUENCE = struct.Struct("<Q")
SUFFIX = ".log"
BLOCK = 4096
"""Bytes that a disk loses together: where a file cannot be read, so many at a time are left out."""
LARGEST_PAYLOAD = 16 * 1024 * 1024 - 1
"""Bytes; a head that tells more is none."""
# Where a head may begin: the first byte of the length is 0, that of the sequence number too (it
# counts microseconds), and the number is none. Text has no such bytes, so it is passed quickly.
_HEAD_LIKE = re.compile(rb"(?s)(?=.{3}\0.{4}(?!\0{8}).{7}\0)")


_NAME = re.compile(r"(note|warning|exception|refusal)-(\d{20})(?:-([0-9a-f]{12}))?\.log")


class Frame(NamedTuple):
    """A record as it stands in a file.

    Attributes:
        sequence: Its number among those of its writer.
        payload: Its bytes.
        writer: The name of the process that wrote it; no two have the same.
    """

    sequence: int
    payload: bytes
    writer: str = ""


class Piece(NamedTuple):
    """A part of a file: one record, or bytes that are none.

    Attributes:
        start, end: Where it lies, in bytes.
        frame: The record; None where the bytes are none.
        rest: Those bytes.
    """

    start: int
    end: int
    frame: Frame | None
    rest: bytes = b""


def new_writer(replica: str) -> str:
    """Return a name for a process that begins to write."""
    return writer_name(replica, uuid.uuid4().hex[:TAG_LENGTH])


def writer_name(replica: str, tag: str) -> str:
    """Return the name of a process that writes, of at most 80 characters, as the database takes."""
    return f"{replica[: LONGEST_WRITER - TAG_LENGTH - 1]}-{tag}"


def framed(sequence: int, payload: bytes) -> bytes:
    """Return a record with its head."""
    check = zlib.crc32(payload, zlib.crc32(_SEQUENCE.pack(sequence)))
    return HEAD.pack(len(payload), check, sequence) + payload


class Segment:
    """One file of records, numbered upwards.

    Attributes:
        path: The file; its name tells importance, first sequence number and writer.
        importance: That of its records.
        writer: The name of the process that wrote it.
        first, last: Sequence numbers; ``last`` is ``first - 1`` while the file is empty.
        count: How many records it has.
        size: Bytes, up to the end of the last whole record.
        harmed: Where damage begins that is counted already.
    """

    def __init__(self, path: Path, importance: Importance, first: int, writer: str) -> None:
        """Describe a file that has no record yet."""
        self.path = path
        self.importance = importance
        self.writer = writer
        self.first = first
        self.last = first - 1
        self.count = 0
        self.size = 0
        self.harmed: set[int] = set()

    @classmethod
    def new(cls, folder: Path, importance: Importance, first: int, writer: str) -> Segment:
        """Describe a file that is about to be made."""
        tag = writer[-TAG_LENGTH:]
        name = f"{importance.name.lower()}-{first:020d}-{tag}{SUFFIX}"
        return cls(folder / name, importance, first, writer)

    @classmethod
    def named(cls, path: Path, replica: str) -> Segment | None:
        """Describe a file of a folder that is called so; None where it is none of a spool."""
        name = _NAME.fullmatch(path.name)
        if name is None:
            return None
        importance, first, tag = name.groups()
        # Files of the first versions do not tell who wrote them.
        writer = writer_name(replica, tag) if tag else replica
        return cls(path, Importance[importance.upper()], int(first), writer)

    def add(self, sequence: int, end: int) -> None:
        """Note that there is a record that ends at an offset."""
        self.last = sequence
        self.count += 1
        self.size = end

    def find(self) -> list[Piece]:
        """Note the records that a former process left; return what is damaged.

        A process that was killed leaves at most one record that is not whole, at the end, and
        nobody was told of it. Whatever else cannot be read was harmed later. What stands behind
        it is found all the same.

        Raises:
            OSError: The file cannot be read.
        """
        content = read_what_can_be(self.path)
        damage = []
        for piece in pieces(content):
            if piece.frame is not None:
                self.add(piece.frame.sequence, piece.end)
            elif piece.end < len(content) or not _is_torn(piece.rest):
                damage.append(piece)
        return damage

    def pieces(self, start: int = 0) -> Iterator[Piece]:
        """Yield what follows an offset between two records.

        Raises:
            OSError: The file cannot be read.
        """
        content = read_what_can_be(self.path, start, self.size)
        for piece in pieces(content):
            frame = piece.frame and piece.frame._replace(writer=self.writer)
            yield Piece(start + piece.start, start + piece.end, frame, piece.rest)


def read_what_can_be(path: Path, start: int = 0, end: int | None = None) -> bytes:
    """Return a part of a file, with zeros for what the disk cannot read.

    Args:
        path: The file.
        start: Where the part begins, in bytes.
        end: Where it ends; None for the end of the file.

    Raises:
        OSError: Nothing of it can be read, or not because of the disk.
    """
    with path.open("rb") as file:
        descriptor = file.fileno()
        size = os.fstat(descriptor).st_size if end is None else end
        return b"".join(_readable(descriptor, start, size))


def _readable(descriptor: int, at: int, end: int) -> Iterator[bytes]:
    by_blocks = False
    while at < end:
        # As the disk has them, so that one that is bad costs nothing beside it.
        until = min(end, (at // BLOCK + 1) * BLOCK) if by_blocks else end
        try:
            # The kernel may stop short before what it cannot read.
            got = os.pread(descriptor, until - at, at)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            if not by_blocks:
                by_blocks = True
                continue
            got = bytes(until - at)
        if not got:
            return
        yield got
        at += len(got)


def pieces(content: bytes) -> Iterator[Piece]:
    """Yield each record, and what lies between records and is none."""
    at = 0
    while at < len(content):
        frame = _frame_at(content, at)
        if frame is not None:
            end = at + HEAD.size + len(frame.payload)
            yield Piece(at, end, frame)
        else:
            end = _next_frame(content, at + 1)
            yield Piece(at, end, None, content[at:end])
        at = end


def _frame_at(content: bytes, at: int) -> Frame | None:
    if at + HEAD.size > len(content):
        return None
    length, check, sequence = HEAD.unpack_from(content, at)
    end = at + HEAD.size + length
    if length > LARGEST_PAYLOAD or end > len(content):
        return None
    payload = content[at + HEAD.size : end]
    if zlib.crc32(payload, zlib.crc32(_SEQUENCE.pack(sequence))) != check:
        return None
    return Frame(sequence, payload)


def _next_frame(content: bytes, at: int) -> int:
    """Return where the next whole record begins, the end where there is none."""
    for match in _HEAD_LIKE.finditer(content, at):
        if _frame_at(content, match.start()) is not None:
            return match.start()
    return len(content)


def _is_torn(rest: bytes) -> bool:
    """Tell whether bytes are the beginning of a frame whose end is missing."""
    if len(rest) < HEAD.size:
        return True
    length: int = HEAD.unpack_from(rest)[0]
    return length <= LARGEST_PAYLOAD and HEAD.size + length > len(rest)


def damaged_payloads(content: bytes) -> list[bytes]:
    """Return what is left of the records in a damaged part, one at least.

    Where the heads still lead from one to the next and to the end, that is each payload; else
    nobody knows how many there were, and it is one, empty.
    """
    found, at = [], 0
    while at + HEAD.size <= len(content):
        length: int = HEAD.unpack_from(content, at)[0]
        end = at + HEAD.size + length
        found.append(content[at + HEAD.size : end])
        at = end
    return found if at == len(content) else [b""]
