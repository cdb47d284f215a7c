"""The Dockerfile, as far as it can be checked where no image can be built."""

from __future__ import annotations

import configparser
import fnmatch
import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
TEXT = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8")
STAGES = re.split(r"^FROM .*$", TEXT.replace("\\\n", " "), flags=re.MULTILINE)[1:]


def instructions(stage: str, word: str) -> list[list[str]]:
    """Return the words of each instruction of a kind."""
    return [line.split()[1:] for line in stage.splitlines() if line.startswith(word + " ")]


def test_everything_that_is_copied_is_there_and_not_kept_from_the_build() -> None:
    ignored = (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").split()
    let_in = [line[1:] for line in ignored if line.startswith("!")]
    copied = [source for words in instructions(STAGES[0], "COPY") for source in words[:-1]]
    assert copied
    for source in copied:
        assert (CHECKOUT / source).exists(), source
        assert any(fnmatch.fnmatch(source, pattern) for pattern in let_in), source


def test_packages_come_from_the_lock_by_hash() -> None:
    installs = [" ".join(words) for words in instructions(STAGES[0], "RUN")]
    assert any("--require-hashes" in run and "-r requirements.lock" in run for run in installs)
    pips = [step for run in installs for step in run.split("&&") if "pip install" in step]
    assert all("--require-hashes" in step or "--no-deps /wheel/" in step for step in pips)


def test_the_last_stage_installs_nothing_and_is_not_root() -> None:
    assert instructions(STAGES[-1], "RUN") == []
    ((user,),) = instructions(STAGES[-1], "USER")
    assert int(user.split(":")[0]) > 0


def test_both_stages_start_from_the_same_base() -> None:
    bases = re.findall(r"^FROM (\S+)", TEXT, flags=re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1


def test_the_entry_point_is_the_program_that_the_package_installs() -> None:
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"]
    assert 'ENTRYPOINT ["migration-guard", "serve"]' in STAGES[-1]
    assert re.search(r"^migration-guard\s*=", scripts, flags=re.MULTILINE)
