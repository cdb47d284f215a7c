"""Pods by the virtual machine that they run, kept up to date pod by pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.model import labels
from webhook.model.snapshot import repelling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.model.migration import LauncherPod
    from webhook.model.pod_affinity import PodTerm

# Under this key stand the pods that are no virtual machine's: no uid looks like it.
OTHER_PODS = "pods of no virtual machine"
_Repelling = tuple["tuple[LauncherPod, PodTerm]", ...]


def is_launcher(pod: LauncherPod) -> bool:
    """Tell whether a pod runs a virtual machine."""
    return pod.labels.get(labels.POD_KIND) == labels.LAUNCHER


class PodsByVmi:
    """The pods that are not finished: by the uid of their VMI, or under :data:`OTHER_PODS`."""

    __slots__ = ("_by_owner", "_grouped", "_owners", "_repelling", "_touched", "_without_uid")

    def __init__(self) -> None:
        """Begin without pods."""
        self._by_owner: dict[str, dict[str, LauncherPod]] = {}
        self._owners: dict[str, str] = {}
        self._without_uid: dict[str, dict[str, LauncherPod]] = {}
        self._grouped: Mapping[str, tuple[LauncherPod, ...]] = {}
        self._repelling: dict[str, _Repelling] = {}
        self._touched: set[str] = set()

    def note(self, key: str, after: LauncherPod | None, vmi_uid: str) -> None:
        """Take up that a pod came, changed or went.

        Args:
            key: ``namespace/name`` of the pod.
            after: The pod; None where it is gone.
            vmi_uid: The uid of the VMI that the pod names, "" where that is not known.
        """
        self._forget(key)
        if after is None or after.finished:
            return
        owner = OTHER_PODS
        if is_launcher(after):
            owner = after.vmi_uid or vmi_uid
            if not after.vmi_uid:
                self._without_uid.setdefault(_vmi_of(after), {})[key] = after
        self._owners[key] = owner
        self._touched.add(owner)
        self._by_owner.setdefault(owner, {})[key] = after
        if terms := repelling(after):
            self._repelling[key] = terms

    def note_vmi(self, key: str, uid: str) -> None:
        """Take up that a VMI has another uid than before: some pods know it by its name alone."""
        for pod_key, pod in list(self._without_uid.get(key, {}).items()):
            self.note(pod_key, pod, uid)

    def grouped(self) -> Mapping[str, tuple[LauncherPod, ...]]:
        """Return the pods; what was returned before is not changed."""
        if self._touched:
            grouped = dict(self._grouped)
            for owner in self._touched:
                if several := self._by_owner.get(owner):
                    grouped[owner] = tuple(several.values())
                else:
                    grouped.pop(owner, None)
            self._touched.clear()
            self._grouped = grouped
        return self._grouped

    def repelling(self) -> _Repelling:
        """Return the required anti-affinity of pods, as it keeps others from their nodes."""
        return tuple(term for terms in self._repelling.values() for term in terms)

    def _forget(self, key: str) -> None:
        owner = self._owners.pop(key, None)
        if owner is None:
            return
        self._touched.add(owner)
        here = self._by_owner[owner]
        before = here.pop(key)
        if not here:
            del self._by_owner[owner]
        self._repelling.pop(key, None)
        if is_launcher(before) and not before.vmi_uid:
            named = self._without_uid[_vmi_of(before)]
            del named[key]
            if not named:
                del self._without_uid[_vmi_of(before)]


def _vmi_of(pod: LauncherPod) -> str:
    return f"{pod.namespace}/{pod.vmi_name}"
