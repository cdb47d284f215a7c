"""``candidates NS/VM``: every node, whether it can take the VM, and why not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from webhook.cli.errors import CommandError
from webhook.cli.exit_status import ALL_WELL, BAD_INPUT, SAYS_NO
from webhook.cli.loading import (
    errors_json,
    facts_place,
    load_configuration,
    load_inventory,
    say_errors,
)
from webhook.cli.nodes import NODE_HEADERS, node_rows, nodes_json
from webhook.cli.options import Commands, add_command, add_config, add_inventory, add_output
from webhook.cli.printing import Screen, Styled, emit
from webhook.model.blockers import Blocker, blockers
from webhook.model.fields import InvalidObject
from webhook.model.placement import Assessment, assess
from webhook.policy.rules import Mode, Rule
from webhook.review.annotations import CPU_MODEL, CPU_MODEL_SOURCE
from webhook.review.cpu_models import model_source
from webhook.review.default_model import default_model

if TYPE_CHECKING:
    import argparse

    from webhook.model.requirements import Requirements
    from webhook.model.snapshot import Snapshot
    from webhook.model.virtual_machine import VirtualMachineInstance
    from webhook.policy.configuration import Configuration

MOST_NAMES = 3


@dataclass(frozen=True, slots=True)
class Candidates:
    """One VM held against all nodes.

    Attributes:
        stopped: There is no VMI: the VM's template is judged as a start.
        source: The node it runs on, None where it does not run.
        model_source: Who chose the CPU model, one of ``cpu_models.MODEL_SOURCES``.
        notes: What else the person who asks should know.
    """

    key: str
    stopped: bool
    source: str | None
    demanded: Requirements
    model_source: str
    blockers: tuple[Blocker, ...]
    assessment: Assessment
    notes: tuple[str, ...]

    @property
    def found(self) -> bool:
        """Whether the VM can go to another node now."""
        in_the_way = self.blockers and not self.stopped
        return self.assessment.fits_somewhere and not in_the_way


def add(commands: Commands) -> None:
    """Describe the command to the parser."""
    parser = add_command(
        commands,
        "candidates",
        run,
        about="every node: can it take this VM, and why not",
        description="Tell for every node whether it can take a VM, and why not. A stopped VM is "
        "judged as a start of its template.\n\n"
        "Exit status 1: no other node fits now, or something is wrong with the VM itself.",
        examples="%(prog)s default/web --inventory cluster.yaml\n"
        "%(prog)s web -n shop --inventory cluster.yaml -o json",
    )
    parser.add_argument("vm", metavar="[NAMESPACE/]VM", help="the VM, or a VMI without a VM")
    parser.add_argument(
        "-n", "--namespace", metavar="NAMESPACE", help="its namespace (default: default)"
    )
    add_inventory(parser)
    add_config(parser)
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    """Judge the VM and print every node."""
    configuration = load_configuration(args.config)
    key = _key(args.vm, args.namespace)
    inventory = load_inventory(facts_place(args), all_pods=configuration.facts.all_pods)
    say_errors(inventory.errors)
    found = judge(key, inventory.snapshot, configuration, datetime.now(UTC))
    value = {**to_json(found), "errors": errors_json(inventory.errors)}
    emit(args.output, value, lambda screen: _table(screen, found))
    if inventory.errors:
        return BAD_INPUT
    return ALL_WELL if found.found else SAYS_NO


def _key(vm: str, namespace: str | None) -> str:
    before, slash, name = vm.rpartition("/")
    if not name or "/" in before or (slash and not before):
        raise CommandError(f"{vm!r}: NAMESPACE/VM is wanted, or VM alone")
    if before and namespace and before != namespace:
        raise CommandError(f"{vm!r} names namespace {before}, and -n names {namespace}")
    return f"{before or namespace or 'default'}/{name}"


def judge(key: str, snapshot: Snapshot, configuration: Configuration, now: datetime) -> Candidates:
    """Hold a VM against all nodes.

    Raises:
        CommandError: No VM or VMI has that name, or it cannot be read.
    """
    vm, vmi = snapshot.vms.get(key), snapshot.vmis.get(key)
    try:
        if vmi is not None:
            instance = vmi
        elif vm is not None:
            instance = _as_started(vm.instance(), snapshot, configuration)
        else:
            raise CommandError(_unknown(key, snapshot))
        mode = configuration.mode_for(Rule.PASSTHROUGH_CPU, namespace=instance.namespace)
        demanded = snapshot.requirements(instance, strict_passthrough=mode is Mode.ENFORCE)
        under = snapshot.conditions(demanded, configuration.passing_taints, now.timestamp())
        assessment = assess(demanded, snapshot.nodes, under)
        model = model_source(instance, snapshot)
    except InvalidObject as error:
        raise CommandError(f"VM {key}: {error}") from error
    stopped = vmi is None
    return Candidates(
        key=key,
        stopped=stopped,
        source=instance.node_name if instance.running else None,
        demanded=demanded,
        model_source=model.source,
        blockers=_STOPPED if stopped else _blockers(instance, snapshot),
        assessment=assessment,
        notes=tuple(_notes(instance, snapshot, demanded, stopped=stopped)),
    )


def _as_started(
    vmi: VirtualMachineInstance, snapshot: Snapshot, configuration: Configuration
) -> VirtualMachineInstance:
    """Return a stopped VM's instance with the model that the guard would set at its start."""
    mode = configuration.mode_for(Rule.CPU_MODEL_DEFAULT, namespace=vmi.namespace)
    if vmi.cpu_model or mode is not Mode.ENFORCE:
        return vmi
    model, source = default_model(vmi, snapshot, configuration)
    notes = {**vmi.annotations, CPU_MODEL: model, CPU_MODEL_SOURCE: source}
    return replace(vmi, cpu_model=model, annotations=notes)


_STOPPED = (Blocker("not-running", "it is stopped: the nodes are judged for a start"),)


def _blockers(vmi: VirtualMachineInstance, snapshot: Snapshot) -> tuple[Blocker, ...]:
    return tuple(blockers(vmi, snapshot.migrations_under_way))


def _notes(
    vmi: VirtualMachineInstance, snapshot: Snapshot, demanded: Requirements, *, stopped: bool
) -> list[str]:
    found = list(demanded.notes)
    vm = snapshot.vms.get(vmi.key)
    if stopped and vm is not None and vm.instancetype:
        found.append(
            f'what instancetype "{vm.instancetype}" adds at the start is not among the facts'
        )
    if blind := snapshot.blind() or snapshot.blind_to(vmi):
        found.append(blind)
    return found


def _unknown(key: str, snapshot: Snapshot) -> str:
    known = sorted({*snapshot.vms, *snapshot.vmis})
    namespace, _, name = key.partition("/")
    elsewhere = [other for other in known if other.rpartition("/")[2] == name]
    near = elsewhere or get_close_matches(key, known, n=MOST_NAMES, cutoff=0.7)
    if near:
        return f"no VM {key} in the inventory; there is {', '.join(near[:MOST_NAMES])}"
    if not known:
        return f"no VM {key}: the inventory holds no VM at all; does it have vms and vmis?"
    count = sum(1 for other in known if other.startswith(f"{namespace}/"))
    return f"no VM {key} in the inventory; it has {count} of namespace {namespace}"


def to_json(found: Candidates) -> dict[str, Any]:
    """Return the answer as ``schema candidates`` describes it."""
    return {
        "vm": found.key,
        "source": found.source,
        "cpuModel": found.demanded.cpu_model,
        "cpuModelSource": found.model_source,
        "blockers": [{"code": b.code, "message": b.message} for b in found.blockers],
        "nodes": nodes_json(found.assessment),
        "notJudged": list(found.demanded.not_judged),
        "notes": list(found.notes),
    }


def _table(screen: Screen, found: Candidates) -> None:
    where = f"on node {found.source}" if found.source else "not running"
    model = f"CPU model {found.demanded.cpu_model} ({found.model_source})"
    screen.parts((Styled(f"VM {found.key}", "bold"), f", {where}, {model}"))
    for blocker in found.blockers:
        word = Styled("note: ", "") if found.stopped else Styled("blocked: ", "red")
        screen.parts((word, blocker.message))
    for note in found.notes:
        screen.line(f"note: {note}")
    if found.demanded.not_judged:
        screen.line(f"not judged: {', '.join(found.demanded.not_judged)}")
    screen.line()
    screen.table(NODE_HEADERS, node_rows(found.assessment))
