"""Settings that are legal, and yet may not do what was meant.

What depends on a cluster, such as KubeVirt's own completion timeout, is compared elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.policy.configuration import (
    COMMON_MODEL,
    KUBEVIRT_MODEL,
    Configuration,
    DeadlineMode,
    DeadlineSettings,
    FirstBoot,
    WhenBlind,
)
from webhook.policy.explaining import nearest
from webhook.policy.findings import Finding, Level
from webhook.policy.globs import any_matches, covers, matches
from webhook.policy.origins import MigrationOrigin
from webhook.policy.rules import Mode, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.policy.configuration import RuleSettings

SHORTEST_STALE_AFTER = 30
SHORTEST_SETTLE_AFTER = 400
"""Seconds. Below it, a short pause of the API server already makes the guard blind."""
SECONDS_OF_A_GIB = 9
"""At 1 Gbit/s: 8 x 2**30 bits take 8.6 s, and a guest that runs writes anew what was copied."""

_WIDE_GROUPS = {
    "system:authenticated": "everyone who is logged in, KubeVirt's own controllers included,",
    "system:unauthenticated": "everyone who is not logged in",
    "system:serviceaccounts": "every service account, KubeVirt's own controllers included,",
    "system:masters": "every cluster administrator",
}
# In the namespaces that KubeVirt and Harvester install it in.
_KUBEVIRT_CONTROLLERS = (
    "system:serviceaccount:kubevirt:kubevirt-controller",
    "system:serviceaccount:harvester-system:kubevirt-controller",
)


def check(configuration: Configuration) -> list[Finding]:
    """Return what is questionable in a configuration, in the order of the file's keys.

    Warnings are likely mistakes or dangerous; infos say what a setting amounts to.
    """
    return [
        *_max_mode(configuration),
        *(
            finding
            for rule, settings in configuration.rules.items()
            for finding in _rule(rule, settings, configuration.max_mode)
        ),
        *_cpu_model(configuration),
        *_first_boot(configuration),
        *_deadline(configuration),
        *_exempt(configuration),
        *_override(configuration),
        *_facts(configuration),
        *_passing_taints(configuration),
    ]


def _max_mode(configuration: Configuration) -> Iterator[Finding]:
    limit = configuration.max_mode
    if limit is Mode.ENFORCE:
        return
    means = {
        Mode.WARN: "nothing is refused or changed; whoever asks is warned",
        Mode.AUDIT: "nothing is refused, changed or warned about; findings are written down",
        Mode.OFF: "the guard does nothing at all",
    }[limit]
    level = Level.WARNING if limit is Mode.OFF else Level.INFO
    yield Finding(level, "maxMode", f"all rules are capped to `{limit}`: {means}")


def _rule(rule: Rule, settings: RuleSettings, limit: Mode) -> Iterator[Finding]:
    path = f"rules.{rule.value}"
    # A mode that is the rule's default was perhaps never written; maxMode's own finding covers it.
    if settings.mode is not rule.default:
        yield from _capped(f"{path}.mode", settings.mode, limit)
    for origin in MigrationOrigin:
        mode = settings.origins.of(origin)
        if mode is None:
            continue
        here = f"{path}.origins.{origin.value}"
        if not rule.reviews_migrations and origin is not MigrationOrigin.USER:
            yield Finding(Level.WARNING, here, "has no effect: this rule reviews no migrations")
        else:
            yield from _capped(here, mode, limit)
    earlier: list[str] = []
    for index, entry in enumerate(settings.namespaces):
        here = f"{path}.namespaces[{index}]"
        above = next((glob for glob in earlier if covers(glob, entry.match)), None)
        if above is not None:
            message = f"never matches: `{above}` above it already covers `{entry.match}`"
            yield Finding(Level.WARNING, here, message)
        else:
            yield from _capped(f"{here}.mode", entry.mode, limit)
        earlier.append(entry.match)


def _capped(path: str, mode: Mode, limit: Mode) -> Iterator[Finding]:
    if mode > limit:
        yield Finding(Level.INFO, path, f"`{mode}` acts as `{limit}`, because of maxMode")


def _cpu_model(configuration: Configuration) -> Iterator[Finding]:
    model = configuration.cpu_model.default
    path = "cpuModel.default"
    words = (KUBEVIRT_MODEL, COMMON_MODEL)
    meant = nearest(model, words)
    if meant and model not in words:
        message = f"`{model}` is taken as the name of a CPU model; did you mean `{meant}`?"
        yield Finding(Level.WARNING, path, message)
    strongest = _strongest(configuration, Rule.CPU_MODEL_DEFAULT)
    if model != KUBEVIRT_MODEL and strongest is not Mode.ENFORCE:
        message = f"is never set: the rule cpu-model-default is at most `{strongest}`"
        yield Finding(Level.WARNING, path, message)


def _first_boot(configuration: Configuration) -> Iterator[Finding]:
    strongest = _strongest(configuration, Rule.FIRST_BOOT)
    if configuration.first_boot is FirstBoot.PREFER_MIGRATABLE and strongest is not Mode.ENFORCE:
        message = f"changes no pod: the rule first-boot is at most `{strongest}`"
        yield Finding(Level.WARNING, "firstBoot", message)


def _strongest(configuration: Configuration, rule: Rule) -> Mode:
    """Return the strongest mode in which a rule can review an object of a user."""
    settings = configuration.rules[rule]
    modes = [settings.mode, *(entry.mode for entry in settings.namespaces)]
    if settings.origins.user is not None:
        modes[0] = settings.origins.user
    return max(modes).capped(configuration.max_mode)


def _deadline(configuration: Configuration) -> Iterator[Finding]:
    deadline = configuration.deadline
    changed = deadline.seconds_per_gib != DeadlineSettings().seconds_per_gib
    if deadline.mode is DeadlineMode.KUBEVIRT and changed:
        message = "has no effect: deadline.mode is `kubevirt`, so KubeVirt's own limit counts"
        yield Finding(Level.WARNING, "deadline.secondsPerGiB", message)
    elif deadline.mode is DeadlineMode.GUARD and deadline.seconds_per_gib < SECONDS_OF_A_GIB:
        message = (
            f"a migration network of 1 Gbit/s needs {SECONDS_OF_A_GIB} s to copy a GiB once: "
            "migrations would be ended that only need time"
        )
        yield Finding(Level.WARNING, "deadline.secondsPerGiB", message)


def _exempt(configuration: Configuration) -> Iterator[Finding]:
    exempt = configuration.exempt
    for index, pattern in enumerate(exempt.groups):
        if who := _wide(pattern):
            message = f"`{pattern}` exempts {who} from every refusal"
            yield Finding(Level.WARNING, f"exempt.groups[{index}]", message)
    for index, pattern in enumerate(exempt.users):
        if any_matches(_KUBEVIRT_CONTROLLERS, (pattern,)):
            message = f"`{pattern}` exempts KubeVirt's controller, and so every evacuation"
            yield Finding(Level.WARNING, f"exempt.users[{index}]", message)


def _override(configuration: Configuration) -> Iterator[Finding]:
    override = configuration.override
    if not override.groups and not override.users:
        message = "nobody may override a refusal; only a change of this configuration lifts one"
        yield Finding(Level.WARNING, "override", message)
    elif not override.groups:
        message = "only the users listed may override a refusal, not cluster administrators"
        yield Finding(Level.WARNING, "override.groups", message)
    for index, pattern in enumerate(override.groups):
        who = _wide(pattern)
        if who and pattern != "system:masters":
            message = f"`{pattern}` lets {who} override any refusal"
            yield Finding(Level.WARNING, f"override.groups[{index}]", message)


def _wide(pattern: str) -> str:
    """Say whom a pattern for groups takes in, where that is more than was perhaps meant."""
    return next((who for group, who in _WIDE_GROUPS.items() if matches(group, pattern)), "")


def _facts(configuration: Configuration) -> Iterator[Finding]:
    seconds = configuration.facts.stale_after
    if seconds < SHORTEST_STALE_AFTER:
        message = (
            f"after only {seconds} s without a sign of life from the API server the guard counts "
            f"as blind; take {SHORTEST_STALE_AFTER}s or more"
        )
        yield Finding(Level.WARNING, "facts.staleAfter", message)
    settle = configuration.facts.settle_after
    if settle < SHORTEST_SETTLE_AFTER:
        message = (
            f"virt-handler writes a node's labels every 3 to 6.6 minutes; after only {settle} s a "
            f"missing one is taken for lasting, and migrations are refused that would succeed a "
            f"little later; take {SHORTEST_SETTLE_AFTER}s or more"
        )
        yield Finding(Level.WARNING, "facts.settleAfter", message)
    if configuration.when_blind is WhenBlind.DENY:
        message = (
            f"while facts are missing or older than {seconds} s, every migration that a user "
            "starts is refused; evacuations and workload updates are not"
        )
        yield Finding(Level.WARNING, "whenBlind", message)


def _passing_taints(configuration: Configuration) -> Iterator[Finding]:
    for index, pattern in enumerate(configuration.passing_taints):
        if not pattern.strip("*"):
            message = "every taint counts as one that goes by itself, dedicated nodes' included"
            yield Finding(Level.WARNING, f"passingTaints[{index}]", message)
