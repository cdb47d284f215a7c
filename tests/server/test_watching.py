"""Files that are watched, with a thread and files of their own."""

from __future__ import annotations

import json
import threading

from tests.server.running import SECONDS, until
from webhook.serving.watching import FileWatch


def test_watching_outlives_what_nobody_has_thought_of_and_the_log_is_told_once(tmp_path, caplog):
    file = tmp_path / "file"
    calls, taken_up = [], threading.Event()

    def changed():
        calls.append(file.read_text())
        if calls[-1] == "broken":
            raise RuntimeError("quotes a secret")
        taken_up.set()

    FileWatch((file,), changed).start()
    file.write_text("broken")
    until(lambda: len(calls) == 2)
    file.write_text("whole again")

    assert taken_up.wait(SECONDS)
    (line,) = caplog.messages
    logged = json.loads(line)
    assert (logged["error"], logged["text"]) == ("RuntimeError", "")
    assert logged["at"]
