"""One webhook of a live configuration, held against what it should be."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from webhook.cluster.expected_entries import (
    ACCOUNTS,
    EXPECTED,
    LEFT_OUT,
    LONGEST_TIMEOUT,
    NAME,
    NAMESPACE_NAME,
    NEVER_FAILS,
    PORT,
    VERSION,
)
from webhook.model import fields, labels
from webhook.model.wording import escaped
from webhook.review.deciding import KUBEVIRT
from webhook.review.requester import CONTROLLER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from webhook.cluster.expected_entries import Expected, Term
    from webhook.model.fields import Object

PATHS = {"mutating": "/mutate", "validating": "/validate"}
"""Where the guard answers, by the kind of the configuration."""

_MIGRATIONS = "virtualmachineinstancemigrations"
_DEFAULT_TIMEOUT = 10
_DEFAULT_PORT = 443
_LONGEST_LIST = 200
_ACCOUNT_LIST = re.compile(r'(?<=request\.userInfo\.usernamein)\["[^\[\]]*"\]')


class LiveEntry:
    """One webhook of a configuration.

    Raises:
        InvalidObject: A field has a type that it cannot have.
    """

    def __init__(self, kind: str, entry: Object) -> None:
        """Read it.

        Args:
            kind: ``mutating`` or ``validating``.
            entry: As it stands under ``webhooks``.
        """
        self.kind = kind
        self._plain_name = fields.text(entry, "name")
        self.name = escaped(self._plain_name)
        at = ("clientConfig", "service")
        self.by_url = fields.text(entry, "clientConfig", "url")
        self.path = fields.text(entry, *at, "path") or _path_of(self.by_url)
        self.service = (fields.text(entry, *at, "namespace"), fields.text(entry, *at, "name"))
        self._port = fields.integer(entry, *at, "port") or _DEFAULT_PORT
        self.bundle = fields.text(entry, "clientConfig", "caBundle")
        self.fails = fields.text(entry, "failurePolicy") == "Fail"
        self.timeout = fields.integer(entry, "timeoutSeconds") or _DEFAULT_TIMEOUT
        self.conditions = {
            fields.text(c, "name"): fields.text(c, "expression")
            for c in fields.items(entry, "matchConditions")
        }
        self._match_policy = fields.text(entry, "matchPolicy")
        self._side_effects = fields.text(entry, "sideEffects")
        self._again = fields.text(entry, "reinvocationPolicy")
        self._versions = fields.strings(entry, "admissionReviewVersions")
        self._rules = tuple(fields.items(entry, "rules"))
        self._namespaces = _terms(entry, "namespaceSelector")
        self._objects = _terms(entry, "objectSelector")

    @property
    def expected(self) -> Expected | None:
        """What it should be; None where the guard has no entry of that name and kind."""
        found = EXPECTED.get(self._plain_name)
        return found if found is not None and found.kind == self.kind else None

    def asks(self, group: str, resource: str, operation: str) -> bool:
        """Tell whether the API server asks this entry about such a request, in version v1."""
        return any(
            _names(rule, "apiGroups", group)
            and _names(rule, "apiVersions", VERSION)
            and _names(rule, "resources", resource)
            and _names(rule, "operations", operation)
            for rule in self._rules
        )

    @property
    def first_pods(self) -> bool:
        """Whether it asks about pods that are no migration's too."""
        wanted = {(labels.MIGRATION_UID, op) for op in ("Exists", "In")}
        migrating_only = any((key, operator) in wanted for key, operator, _ in self._objects)
        return self.asks("", "pods", "CREATE") and not migrating_only

    def accounts(self) -> frozenset[str]:
        """Return the accounts that it takes for KubeVirt's workload updater, or leaves out so."""
        compact = "".join(map(_compact, self.conditions.values()))
        return frozenset(
            name
            for found in _ACCOUNT_LIST.findall(compact)
            for name in re.findall('"(.*?)"', found)
        )

    def leaves_out(self, namespace: str) -> bool:
        """Tell whether its namespaceSelector leaves out a namespace by its name."""
        return any(
            (operator == "NotIn" and namespace in values)
            or (operator == "In" and namespace not in values)
            for key, operator, values in self._namespaces
            if key == NAMESPACE_NAME
        )

    def differences(self, kubevirt_namespaces: Collection[str]) -> Iterator[str]:
        """Say how it differs from what it should be, but for trust and namespaces left out.

        Args:
            kubevirt_namespaces: Where KubeVirt is, or may be.
        """
        expected = self.expected
        if expected is None:
            yield f"{self.name} is no {self.kind} webhook of the guard's: remove it"
        yield from self._of_where()
        yield from self._of_failing(expected, kubevirt_namespaces)
        if self._match_policy == "Exact":
            yield f"{self.name} says matchPolicy Exact: other versions of its kind pass unasked"
        if self.timeout > LONGEST_TIMEOUT:
            yield f"{self.name} waits for up to {self.timeout} s: {LONGEST_TIMEOUT} is much"
        if self._side_effects != "NoneOnDryRun":
            yield f"{self.name} says sideEffects {escaped(self._side_effects)}, not NoneOnDryRun"
        if self._again == "IfNeeded":
            yield f"{self.name} says reinvocationPolicy IfNeeded: it would be asked twice"
        if VERSION not in self._versions:
            yield f"{self.name} does not name {VERSION} among its admissionReviewVersions"
        if self.asks(KUBEVIRT, "kubevirts", "UPDATE"):
            for namespace in sorted(kubevirt_namespaces):
                if self.leaves_out(namespace):
                    yield f"{self.name} leaves out {escaped(namespace)}, where KubeVirt is"
        for namespace in sorted(LEFT_OUT):
            if not self.leaves_out(namespace):
                yield f"{self.name} does not leave out {namespace}: its namespaceSelector should"
        if expected is not None:
            yield from self._of_what_is_asked(expected)

    def _of_where(self) -> Iterator[str]:
        path = PATHS[self.kind]
        if self.by_url:
            if self.path != path:
                yield f"{self.name} leads to {escaped(self.by_url)}, not to {path} there"
            return
        if (*self.service, self._port, self.path) != (NAME, NAME, PORT, path):
            where = escaped(f"{'/'.join(self.service)}, port {self._port}, path {self.path}")
            wanted = f"{NAME}/{NAME}, port {PORT}, path {path}"
            yield f"{self.name} leads to the Service {where}, not to {wanted}"

    def _of_failing(
        self, expected: Expected | None, kubevirt_namespaces: Collection[str]
    ) -> Iterator[str]:
        if not self.fails:
            return
        if expected is not None and expected.strict is not None:
            yield from self._of_updates(expected.strict, kubevirt_namespaces)
            return
        harm = next(
            (why for what, why in NEVER_FAILS.items() if self.asks("", what, "CREATE")),
            "without the guard, what it asks about is refused",
        )
        if self.asks(KUBEVIRT, _MIGRATIONS, "CREATE"):
            harm = "KubeVirt repeats a refused workload update many times a second"
        yield f"{self.name} says failurePolicy Fail: {harm}"

    def _of_updates(
        self, strict: Mapping[str, str], kubevirt_namespaces: Collection[str]
    ) -> Iterator[str]:
        """Check that a failing entry leaves out the migrations of KubeVirt's workload updater."""
        if not any(
            _generic(text) in map(_generic, strict.values()) for text in self.conditions.values()
        ):
            yield (
                f"{self.name} says failurePolicy Fail for workload updates too: "
                "KubeVirt repeats a refused one many times a second"
            )
            return
        known = self.accounts()
        for namespace in sorted(kubevirt_namespaces):
            account = f"system:serviceaccount:{namespace}:{CONTROLLER}"
            if account not in known:
                yield f"{self.name} does not know {escaped(account)} as KubeVirt's workload updater"

    def _of_what_is_asked(self, expected: Expected) -> Iterator[str]:
        group, resource, operation = expected.asked
        in_clusters = any(fields.text(rule, "scope") == "Cluster" for rule in self._rules)
        wanted = [([group], [VERSION], [resource], [operation])]
        if in_clusters or [_rule(rule) for rule in self._rules] != wanted:
            yield f"{self.name} has other rules than {resource} at {operation}, in {VERSION}"
        if self._objects != expected.objects:
            words = "another" if expected.objects else "an"
            yield (
                f"{self.name} has {words} objectSelector: "
                "it is asked about other objects than the guard reviews"
            )
        yield from self._of_conditions(expected.conditions, expected.strict or {})

    def _of_conditions(self, wanted: Mapping[str, str], strict: Mapping[str, str]) -> Iterator[str]:
        found = {_generic(text): name for name, text in self.conditions.items()}
        needed = {_generic(text): name for name, text in wanted.items()}
        # Where it says Fail without them, that is told already.
        needed |= {_generic(t): n for n, t in strict.items() if _generic(t) in found}
        for text in sorted(needed.keys() - found.keys()):
            yield (
                f"{self.name} lacks the matchCondition {needed[text]} of the manifests: "
                "it is asked about more than the guard reviews"
            )
        for text in sorted(found.keys() - needed.keys()):
            yield (
                f'{self.name} has a matchCondition of its own, "{escaped(found[text])}": '
                "what does not meet it passes unasked"
            )

    def narrowings(self, told: Collection[str]) -> Iterator[str]:
        """Say about which namespaces it is not asked, beyond those of the manifests.

        Args:
            told: Namespaces of which that is said already.
        """
        for key, operator, values in sorted(self._namespaces, key=str):
            if key == NAMESPACE_NAME and operator == "NotIn":
                if more := sorted(values - LEFT_OUT - set(told)):
                    yield f"named {_any_of(more)}"
                continue
            named = f"label {escaped(key)}"
            which = _any_of(values)
            yield {
                "NotIn": f"whose {named} is {which}",
                "In": f"whose {named} is not {which}",
                "Exists": f"without the {named}",
            }.get(operator, f"with the {named}")


def _any_of(values: Collection[str]) -> str:
    return escaped(" or ".join(sorted(values)), _LONGEST_LIST)


def _path_of(url: str) -> str:
    return "/" + url.partition("://")[2].partition("/")[2]


def _names(rule: Object, field: str, value: str) -> bool:
    return bool({value, "*", "*/*"} & set(fields.strings(rule, field)))


def _rule(rule: Object) -> tuple[list[str], ...]:
    parts = ("apiGroups", "apiVersions", "resources", "operations")
    return tuple(sorted(fields.strings(rule, part)) for part in parts)


def _terms(entry: Object, selector: str) -> frozenset[Term]:
    """Return a label selector as terms, each of which must hold."""
    exact = {
        (key, "In", frozenset({value}))
        for key, value in fields.labels(entry, selector, "matchLabels").items()
    }
    written = {
        (
            fields.text(term, "key"),
            fields.text(term, "operator"),
            frozenset(fields.strings(term, "values")),
        )
        for term in fields.items(entry, selector, "matchExpressions")
    }
    return frozenset(exact | written)


def _compact(expression: str) -> str:
    """Return a CEL expression without the white space by which manifests are folded."""
    return "".join(expression.split())


def _generic(expression: str) -> str:
    """Return a CEL expression without white space and without the accounts of this cluster."""
    return _ACCOUNT_LIST.sub(ACCOUNTS, _compact(expression))
