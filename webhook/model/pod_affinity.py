"""Required affinity and anti-affinity to other pods.

Source: Kubernetes ``pkg/scheduler/framework/plugins/interpodaffinity/filtering.go``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.model import fields
from webhook.model.node_affinity import LabelSelector, read_label_selector

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from webhook.model.fields import Object
    from webhook.model.migration import LauncherPod
    from webhook.model.node import Node


@dataclass(frozen=True, slots=True)
class PodTerm:
    """One required term; ``anti`` keeps away from the pods that match instead of near to them."""

    selector: LabelSelector | None
    namespaces: tuple[str, ...]
    namespace_selector: LabelSelector | None
    topology_key: str
    anti: bool

    def selects(
        self, namespace: str, marks: Mapping[str, str], namespace_labels: Mapping[str, str]
    ) -> bool:
        """Tell whether the term speaks of a pod with these labels in this namespace."""
        near = namespace in self.namespaces or (
            self.namespace_selector is not None
            and self.namespace_selector.matches(namespace_labels)
        )
        return near and self.selector is not None and self.selector.matches(marks)


def read_pod_terms(affinity: Object, namespace: str) -> tuple[PodTerm, ...]:
    """Read the required terms of a pod's or a VMI's affinity.

    Raises:
        InvalidObject: A field has a type or an operator that Kubernetes does not have.
    """
    found = []
    for kind, anti in (("podAffinity", False), ("podAntiAffinity", True)):
        at = (kind, "requiredDuringSchedulingIgnoredDuringExecution")
        for term in fields.items(affinity, *at):
            named = fields.strings(term, "namespaces")
            several = term.get("namespaceSelector")
            found.append(
                PodTerm(
                    selector=read_label_selector(term.get("labelSelector"), *at, "labelSelector"),
                    namespaces=named or (() if several is not None else (namespace,)),
                    namespace_selector=read_label_selector(several, *at, "namespaceSelector"),
                    topology_key=fields.text(term, "topologyKey"),
                    anti=anti,
                )
            )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Domains:
    """For one term: the values of its topology key where the pods are that count.

    ``bootstrap``: there are none yet, and the pod itself is one of those that it wants to be near:
    the first of its kind may go to any node that has the key.
    """

    term: PodTerm
    values: frozenset[str]
    bootstrap: bool

    def excludes(self, node: Node) -> bool:
        """Tell whether the term keeps the pod from a node."""
        at = node.labels.get(self.term.topology_key)
        if self.term.anti:
            return at is not None and at in self.values
        if self.bootstrap:
            return at is None
        return at is None or at not in self.values


def places(
    terms: Sequence[PodTerm],
    pods: Iterable[LauncherPod],
    nodes: Mapping[str, Node],
    namespace_labels: Mapping[str, Mapping[str, str]],
) -> tuple[frozenset[str], ...]:
    """Return, for each term, the values of its topology key where pods run that all terms select.

    Affinity terms count together (``podMatchesAllAffinityTerms``), anti-affinity terms each alone.
    """
    values: tuple[set[str], ...] = tuple(set() for _ in terms)
    for pod in pods:
        node = nodes.get(pod.node_name)
        if node is None or pod.finished:
            continue
        here = namespace_labels.get(pod.namespace, {})
        if all(term.selects(pod.namespace, pod.labels, here) for term in terms):
            for term, found in zip(terms, values, strict=True):
                at = node.labels.get(term.topology_key)
                if at is not None:
                    found.add(at)
    return tuple(frozenset(found) for found in values)
