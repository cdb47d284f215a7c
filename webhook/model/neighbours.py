"""Where other pods keep a virtual machine from, or hold it to; each term is looked up once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.model.pod_affinity import Domains, places

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from webhook.model.migration import LauncherPod
    from webhook.model.node import Node
    from webhook.model.pod_affinity import PodTerm

_Values = dict["PodTerm", set[str]]


class Neighbours:
    """The pods of a cluster, put in order when somebody first asks."""

    __slots__ = (
        "_by_namespace",
        "_namespaces",
        "_nodes",
        "_of_terms",
        "_pods",
        "_repelled",
        "_repelling",
    )

    def __init__(
        self,
        pods: Mapping[str, tuple[LauncherPod, ...]],
        nodes: Mapping[str, Node],
        namespaces: Mapping[str, Mapping[str, str]],
        repelling: Sequence[tuple[LauncherPod, PodTerm]],
    ) -> None:
        """Take the facts as a snapshot has them."""
        self._pods = pods
        self._nodes = nodes
        self._namespaces = namespaces
        self._repelling = repelling
        self._by_namespace: dict[str, list[LauncherPod]] | None = None
        self._repelled: dict[str | None, _Values] | None = None
        self._of_terms: dict[tuple[PodTerm, ...], tuple[frozenset[str], ...]] = {}

    def domains(
        self, terms: Sequence[PodTerm], namespace: str, marks: Mapping[str, str]
    ) -> tuple[Domains, ...]:
        """Say where the terms of a VM, and those of other pods, let it go.

        Args:
            terms: What the VM itself asks for.
            namespace: Its namespace.
            marks: Its labels.
        """
        near = tuple(term for term in terms if not term.anti)
        apart = [(term,) for term in terms if term.anti]
        found = [
            each
            for together in (near, *apart)
            if together
            for each in self._own(together, namespace, marks)
        ]
        if self._repelling:
            here = self._namespaces.get(namespace, {})
            repelled = self._terms_that_repel()
            for spoken_of in (namespace, None):
                for term, values in repelled.get(spoken_of, {}).items():
                    if term.selects(namespace, marks, here):
                        found.append(Domains(term, frozenset(values), bootstrap=False))
        return tuple(dict.fromkeys(found))

    def _terms_that_repel(self) -> dict[str | None, _Values]:
        """Return the terms by the namespace they speak of, None for those that select some."""
        if self._repelled is None:
            found: dict[str | None, _Values] = {}
            for pod, term in self._repelling:
                node = self._nodes.get(pod.node_name)
                at = node.labels.get(term.topology_key) if node else None
                if at is None:
                    continue
                open_ended = term.namespace_selector is not None
                for namespace in (None,) if open_ended else term.namespaces:
                    found.setdefault(namespace, {}).setdefault(term, set()).add(at)
            self._repelled = found
        return self._repelled

    def _own(
        self, terms: tuple[PodTerm, ...], namespace: str, marks: Mapping[str, str]
    ) -> list[Domains]:
        known = self._of_terms.get(terms)
        if known is None:
            known = places(terms, self._near(terms[0]), self._nodes, self._namespaces)
            self._of_terms[terms] = known
        here = self._namespaces.get(namespace, {})
        bootstrap = not any(known) and all(t.selects(namespace, marks, here) for t in terms)
        return [Domains(term, values, bootstrap) for term, values in zip(terms, known, strict=True)]

    def _near(self, term: PodTerm) -> list[LauncherPod]:
        """Return the pods that a term can speak of."""
        if self._by_namespace is None:
            found: dict[str, list[LauncherPod]] = {}
            for several in self._pods.values():
                for pod in several:
                    found.setdefault(pod.namespace, []).append(pod)
            self._by_namespace = found
        if term.namespace_selector is not None:
            return [pod for several in self._by_namespace.values() for pod in several]
        return [pod for name in term.namespaces for pod in self._by_namespace.get(name, ())]
