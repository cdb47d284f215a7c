"""Real reviews with something wrong in them: for fuzzing.

A mutation knows the shape of what it changes: it drops, replaces or copies a field that is there,
or damages the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from hypothesis import strategies as st

from tests.captured_cluster import FIXTURES

DEEP = 200

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Captured:
    """A review as a real API server sent it, and where something stands in it."""

    name: str
    body: bytes
    paths: tuple[Path, ...]


def _paths(here: Any, at: Path = ()) -> list[Path]:
    found: list[Path] = [at] if at else []
    if isinstance(here, dict):
        for key, value in here.items():
            found += _paths(value, (*at, key))
    elif isinstance(here, list):
        for index, value in enumerate(here):
            found += _paths(value, (*at, index))
    return found


def _captured() -> tuple[Captured, ...]:
    found = []
    for file in sorted((FIXTURES / "reviews-1.8.4").glob("*.json")):
        review = orjson.loads(file.read_bytes())
        found.append(Captured(file.stem, orjson.dumps(review), tuple(_paths(review))))
    return tuple(found)


CAPTURED = _captured()


@dataclass(frozen=True)
class Deeper:
    """A list so deep that no parser copies it."""

    depth: int


def _nested(depth: int, kind: str) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = {"a": value} if kind == "mapping" else [value]
    return value


ODD_TEXTS = (
    "",
    " ",
    "0",
    "-1",
    "true",
    "null",
    "1e3",
    "5Gi",
    "-5Gi",
    "1e30Ei",
    "99999999999999999999999Ei",
    "NaN",
    "Infinity",
    "0x10",
    "1_000",
    "\u0661\u0662",
    "host-model",
    "host-passthrough",
    "Haswell",
    "default",
    "DELETE",
    "UPDATE",
    "CONNECT",
    "../../etc/passwd",
    "a/b~c~1~0",
    "*",
    "%s%n{0}",
    "line\nbreak\r\ttab",
    "\x00\x1b[31m",
    "\u202e\u200b\ufeff",
    "\U0001f4a5" * 70,
    "x" * 254,
    "y" * 20_000,
    "v1",
    "v999999999999999999999.0.0",
    "9999-12-31T23:59:59Z",
    "0000-00-00",
    "system:serviceaccount:kubevirt:kubevirt-controller",
    "node02",
    "cpu-model.node.kubevirt.io/Haswell",
    "VirtualMachineInstance",
    "VirtualMachineInstanceMigration",
    "VirtualMachine",
    "KubeVirt",
    "Pod",
    "01a11f3a-0000-7000-8000-000000000000",
)
ODD_VALUES: tuple[Any, ...] = (
    *ODD_TEXTS,
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    1.5,
    -0.0,
    1e308,
    5e-324,
    [],
    {},
    [None],
    [[]],
    [{}],
    {"": ""},
    {"a": None},
    {"kubernetes.io/hostname": "node01"},
    {"key": "a", "operator": "Exists"},
    [{"key": "a", "operator": "Gt", "values": ["x"]}],
    [{"name": "x"}] * 3,
    _nested(DEEP, "mapping"),
    _nested(DEEP, "list"),
    Deeper(2000),
)
_DAMAGES = ("cut", "byte", "insert", "twice", "repeat-key", "tail", "bom", "utf-16")
_CHANGES = (
    *("drop", "replace", "replace", "replace", "copy", "copy", "rename", "wrap", "old", "add"),
    "grow",
)
GROWN = (40, 300, 1_100, 20_000)
"""To how many entries a list or a mapping grows."""
LARGEST_GROWTH = 2 * 1024 * 1024
"""Bytes."""
_positions = st.integers(0, 2**16)
_values = st.one_of(
    st.sampled_from(ODD_VALUES), st.sampled_from(ODD_VALUES), st.text(max_size=20), st.integers()
)
_changes = st.tuples(st.sampled_from(_CHANGES), _positions, _positions, _values)
_damages = st.tuples(st.sampled_from(_DAMAGES), _positions, st.integers(0, 255))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Draw the body of a request: a captured review with one to five things wrong in it."""
    captured = draw(st.sampled_from(CAPTURED))
    review = orjson.loads(captured.body)
    for how, first, second, value in draw(st.lists(_changes, min_size=1, max_size=4)):
        _change(review, captured.paths, how, first, second, value)
    body = _dump(review)
    damage = draw(st.one_of(st.none(), st.none(), st.none(), _damages))
    return body if damage is None else _damaged(body, *damage)


def _dump(review: Any) -> bytes:
    try:
        return orjson.dumps(review, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:
        # Integers beyond 64 bits, lone surrogates, or too deep for orjson.
        return _by_hand(review)


def _by_hand(value: Any) -> bytes:
    parts: list[bytes] = []
    open_: list[Any] = [value]
    while open_:
        here = open_.pop()
        if isinstance(here, bytes):
            parts.append(here)
        elif isinstance(here, dict):
            open_.append(b"}")
            for number, (key, inner) in enumerate(here.items()):
                open_ += [inner, b":", key, *([b","] if number else [])]
            open_.append(b"{")
        elif isinstance(here, list):
            open_.append(b"]")
            for number, inner in enumerate(here):
                open_ += [inner, *([b","] if number else [])]
            open_.append(b"[")
        elif isinstance(here, int) and not isinstance(here, bool):
            parts.append(b"%d" % here)
        elif isinstance(here, str):
            parts.append(orjson.dumps(here.encode("utf-8", "replace").decode()))
        else:
            parts.append(orjson.dumps(here))
    return b"".join(parts)


def _change(
    review: Any, paths: tuple[Path, ...], how: str, first: int, second: int, value: Any
) -> None:
    # One that stood in two places could come to contain itself.
    if isinstance(value, Deeper):
        value = _nested(value.depth, "list")
    elif isinstance(value, dict | list):
        value = orjson.loads(_dump(value))
    path = paths[first % len(paths)]
    parent, key = at(review, path[:-1]), path[-1]
    if not _has(parent, key):
        return
    if how == "drop":
        del parent[key]
    elif how == "replace":
        parent[key] = value
    elif how == "copy":
        other = at(review, paths[second % len(paths)])
        parent[key] = orjson.loads(_dump(other)) if _small(other) else value
    elif how == "rename" and isinstance(parent, dict):
        parent[value if isinstance(value, str) else str(key).swapcase()] = parent.pop(key)
    elif how == "wrap":
        parent[key] = [parent[key]] if second % 2 else {"": parent[key]}
    elif how == "add":
        inner = parent[key]
        if isinstance(inner, dict):
            inner[ODD_TEXTS[second % len(ODD_TEXTS)]] = value
        elif isinstance(inner, list):
            inner.append(value)
    elif how == "grow":
        parent[key] = grown(parent[key], GROWN[second % len(GROWN)])
    elif how == "old":
        request = review.get("request") if isinstance(review, dict) else None
        if isinstance(request, dict) and _small(request.get("object")):
            request["operation"] = "UPDATE"
            request["oldObject"] = orjson.loads(_dump(request.get("object")))


def grown(value: Any, entries: int) -> Any:
    """Return a list or a mapping with many more entries like the first one it has."""
    if not isinstance(value, dict | list) or not _small(value):
        return value
    first = next(iter(value.items() if isinstance(value, dict) else enumerate(value)), ("", "true"))
    like = _dump(first[1])
    more = range(min(entries, LARGEST_GROWTH // (len(like) + 24)))
    if isinstance(value, dict):
        return {**value, **{f"{first[0]}-{n}": orjson.loads(like) for n in more}}
    return [*value, *(_numbered(orjson.loads(like), n) for n in more)]


def _numbered(value: Any, number: int) -> Any:
    """Return a value that differs from its like: what is the same is often looked at once."""
    if isinstance(value, str):
        return f"{value}-{number}"
    if isinstance(value, dict):
        texts = {k: f"{v}-{number}" for k, v in value.items() if k in ("name", "key", "value")}
        return {**value, **texts}
    return value


def at(review: Any, path: Path) -> Any:
    """Return what stands somewhere in a review, None where nothing does."""
    here = review
    for key in path:
        if not _has(here, key):
            return None
        here = here[key]
    return here


def _has(here: Any, key: str | int) -> bool:
    if isinstance(here, dict):
        return key in here
    return isinstance(here, list) and isinstance(key, int) and key < len(here)


def _small(value: Any) -> bool:
    """Tell whether a value can be read again by orjson."""
    try:
        orjson.loads(_dump(value))
    except orjson.JSONDecodeError:
        return False
    return True


def _damaged(body: bytes, how: str, position: int, byte: int) -> bytes:
    at = position % (len(body) + 1)
    one = bytes([byte])
    if how == "cut":
        return body[:at]
    if how == "byte":
        return body[:at] + one + body[at + 1 :]
    if how == "insert":
        return body[:at] + one * 3 + body[at:]
    if how == "twice":
        return body + body
    if how == "repeat-key":
        return body.replace(b'"metadata":', b'"metadata":%d,"metadata":' % byte, 1)
    if how == "tail":
        return body + one
    if how == "bom":
        return b"\xef\xbb\xbf" + body
    return body.decode("utf-8", "replace").encode("utf-16")
