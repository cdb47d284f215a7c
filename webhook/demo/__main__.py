"""``python -m webhook.demo``: the guard at work on two sample clusters."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from webhook.cli.exit_status import ALL_WELL, INTERRUPTED, PIPE_CLOSED, SAYS_NO
from webhook.cli.printing import Screen, say
from webhook.demo import cluster_story, sample, worked_example_story
from webhook.demo.errors import DemoError
from webhook.demo.program import run
from webhook.demo.sample import INVENTORY
from webhook.demo.stage import Stage

# Each command with the exit status it has on this cluster.
COMMANDS = (
    (("candidates", "shop/gateway"), ALL_WELL),
    (("forecast", "--drain", "icelake-1"), SAYS_NO),
    (("baseline",), ALL_WELL),
)


def main() -> int:
    """Play everything; return the exit status."""
    argparse.ArgumentParser(
        prog="python -m webhook.demo",
        description="Start the webhook server on two sample clusters, post AdmissionReviews as "
        "the API server does, show what comes of them, then run three commands on the same facts.",
    ).parse_args()
    # As an exception, so that the server is stopped before this process ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    screen = Screen()
    try:
        _play(screen)
        sys.stdout.flush()
    except DemoError as error:
        sys.stdout.flush()
        say(f"demo failed: {error}")
        return SAYS_NO
    except BrokenPipeError:
        # Python's own flush at the end must find somewhere to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED
    return ALL_WELL


def _play(screen: Screen) -> None:
    kubevirt = sample.find(sample.objects(INVENTORY / "kubevirt.yaml"), "KubeVirt", "kubevirt")
    version = kubevirt["status"]["observedKubeVirtVersion"]
    screen.line(
        "migration-guard demo: the real server answers real AdmissionReviews, posted over TLS "
        f"as the API server posts them. The cluster plays KubeVirt {version}.",
        "bold",
    )
    stage = Stage(screen)
    worked_example_story.play(stage)
    cluster_story.play(stage)
    _commands(stage)
    screen.line()
    screen.line(
        f"Done: {stage.asked} requests, answered as told. Where to look next: README.md (install, "
        "commands), docs/rules.md (every rule), docs/configuration.md (every setting), "
        "docs/architecture.md (the code); `make serve` keeps this server running.",
    )


def _commands(stage: Stage) -> None:
    stage.heading("3. The same decisions as commands, on the same eight nodes")
    where = os.path.relpath(INVENTORY)
    for words, status in COMMANDS:
        shown = [*words, "--inventory", where if Path(where).exists() else str(INVENTORY)]
        stage.command(["migration-guard", *shown])
        found = run(shown)
        if found != status:
            line = " ".join(("migration-guard", *words))
            raise DemoError(f"`{line}` ended with exit status {found}, expected {status}")


if __name__ == "__main__":
    sys.exit(main())
