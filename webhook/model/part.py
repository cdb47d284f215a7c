"""Nodes with the very same obstacles: how many at once, which ones when somebody asks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain, islice
from operator import attrgetter
from typing import TYPE_CHECKING, overload

from webhook.model.obstacle import Code, Obstacle, fits, lasting

if TYPE_CHECKING:
    from webhook.model.node import Node


class Part:
    """Nodes with the very same obstacles.

    Which nodes these are is worked out when somebody asks; how many, is known at once.

    Attributes:
        obstacles: What stands between the VM and these nodes.
    """

    __slots__ = ("_nodes", "_several", "obstacles")

    def __init__(
        self,
        nodes: Sequence[Node],
        obstacles: tuple[Obstacle, ...],
        *more: Sequence[Node],
    ) -> None:
        """Take the nodes, in several pieces where they are."""
        self.obstacles = obstacles
        self._several: tuple[Sequence[Node], ...] = (nodes, *more)
        self._nodes: tuple[Node, ...] | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes, by name."""
        if self._nodes is None:
            if len(self._several) == 1:
                self._nodes = tuple(self._several[0])
            else:
                every = chain.from_iterable(self._several)
                self._nodes = tuple(sorted(every, key=attrgetter("name")))
        return self._nodes

    def in_any_order(self) -> Iterator[Node]:
        """Yield the nodes, for those who put them in order themselves or need none."""
        return chain.from_iterable(self._several)

    @property
    def count(self) -> int:
        """How many nodes these are."""
        return sum(len(nodes) for nodes in self._several)

    def first_names(self, most: int) -> list[str]:
        """Return the first names of the nodes, in order, without looking at all of them."""
        few = chain.from_iterable(islice(nodes, most) for nodes in self._several)
        return sorted(node.name for node in few)[:most]

    def __eq__(self, other: object) -> bool:
        """Tell whether these are the same nodes with the same obstacles."""
        if not isinstance(other, Part):
            return NotImplemented
        return self.obstacles == other.obstacles and self.nodes == other.nodes

    def __hash__(self) -> int:
        """Hash by the obstacles: parts of one assessment differ in them."""
        return hash(self.obstacles)

    def __repr__(self) -> str:
        """Show nodes and obstacles."""
        return f"Part({[node.name for node in self.nodes]}, {self.obstacles})"

    @property
    def fits(self) -> bool:
        """Whether these nodes can take the VM now."""
        return fits(self.obstacles)

    @property
    def lasting(self) -> bool:
        """Whether waiting does not help on these nodes."""
        return lasting(self.obstacles)

    @property
    def is_source(self) -> bool:
        """Whether this is the node that the VM runs on."""
        return any(o.code is Code.SAME_NODE for o in self.obstacles)


class Without(Sequence["Node"]):
    """The nodes of a group but for some, picked out when somebody asks for them."""

    __slots__ = ("_left_out", "_nodes")

    def __init__(self, nodes: tuple[Node, ...], left_out: Collection[int]) -> None:
        """Take the group's nodes and the positions to leave out."""
        self._nodes = nodes
        self._left_out = left_out

    def __len__(self) -> int:
        return len(self._nodes) - len(self._left_out)

    def __iter__(self) -> Iterator[Node]:
        """Yield the nodes by name."""
        out = self._left_out
        return (node for position, node in enumerate(self._nodes) if position not in out)

    @overload
    def __getitem__(self, index: int) -> Node: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Node]: ...
    def __getitem__(self, index: int | slice) -> Node | Sequence[Node]:
        """Return the nodes at an index."""
        return tuple(self)[index]


class At(Sequence["Node"]):
    """The nodes of a group at some positions, picked out when somebody asks for them."""

    __slots__ = ("_nodes", "positions")

    def __init__(self, nodes: tuple[Node, ...], positions: tuple[int, ...]) -> None:
        """Take the group's nodes and the positions to keep, the smallest first."""
        self._nodes = nodes
        self.positions = positions

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Node]:
        """Yield the nodes by name."""
        return (self._nodes[position] for position in self.positions)

    @overload
    def __getitem__(self, index: int) -> Node: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Node]: ...
    def __getitem__(self, index: int | slice) -> Node | Sequence[Node]:
        """Return the nodes at an index."""
        if isinstance(index, int):
            return self._nodes[self.positions[index]]
        return tuple(self._nodes[position] for position in self.positions[index])
