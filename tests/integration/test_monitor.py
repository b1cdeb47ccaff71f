"""``monitor``: where a run stands, once or followed until it ends, on a terminal and off it, and through an outage."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kit.runs import HandMadeRun, epoch, silent_beat
from kit.waiting import PATIENCE, hang_up, wait_for
from topotrain.cli import main
from topotrain.errors import OutageError, TrackingError
from topotrain.reports import monitor as module
from topotrain.reports.monitor import follow, monitor
from topotrain.reports.monitor_view import Display, page
from topotrain.tracking.store import Store


@pytest.fixture
def run(store_uri: str) -> HandMadeRun:
    """A live run of 50 epochs that did two; the first is the best."""
    return HandMadeRun(store_uri, "live", num_epochs=50).epochs(epoch(0.2, 0.4, rate=0.01), epoch(0.3, rate=0.004))


def test_where_a_run_stands(run, store_uri):
    state = monitor(tracking_uri=store_uri)
    assert state["run_id"] == run.run_id
    assert state["best_epoch"] == 0
    assert state["best_checkpoint"]["uri"] == f"runs:/{run.run_id}/checkpoints/epoch_0000.ckpt"
    assert Path(state["best_checkpoint"]["local_path"]).is_file()
    assert state["best_metrics"]["val_spearman_corr"] == 0.4
    assert state["learning_parameters"]["learning_rate_at_best_epoch"] == 0.01
    assert state["progress"]["eta_seconds"] == 96.0
    assert state["warnings"] == ["run in progress"]
    text = page(state)
    assert "2 of 50 epochs (4.0 %), 2.0 s each, 1 min 36 s left" in text
    assert state["best_checkpoint"]["local_path"] in text
    assert "0 by val_loss: val_loss 0.2000, Spearman 0.400, ranking loss 0.400" in text
    assert "latest      val_loss 0.3000" in text
    assert "batch size 32" in text
    assert "scheduler type cosine factor 0.4 patience 12 warmup_steps 50, early stopping patience 25" in text


def test_before_the_first_epoch(store_uri):
    HandMadeRun(store_uri, "young", params=False)
    text = page(monitor("young", tracking_uri=store_uri))
    assert "0 of - epochs" in text
    assert "warning     no checkpoint yet\nwarning     run in progress\n" in text
    assert "best epoch" not in text


def test_one_look_from_the_shell(run, store_uri, capsys):
    main(["monitor", "--run-id", run.run_id[:8], "--tracking-uri", store_uri, "--format", "json"])
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == monitor(tracking_uri=store_uri)
    main(["monitor", "--tracking-uri", store_uri])
    out, err = capsys.readouterr()
    assert out == page(monitor(tracking_uri=store_uri))
    assert err == ""


def test_following_yields_each_change_once_and_ends_with_the_run(run, store_uri):
    states = follow("live", interval=0.01, tracking_uri=store_uri)
    assert next(states)["progress"]["epochs_completed"] == 2
    HandMadeRun(store_uri, "newer")  # another run does not distract it
    run.epochs(epoch(0.1))
    state = next(states)
    assert (state["best_epoch"], state["best_val_loss"]) == (2, 0.1)
    run.end()
    assert next(states)["status"] == "FINISHED"
    assert next(states, None) is None


def test_following_latest_stays_with_the_run_it_found(run, store_uri):
    states = follow(interval=0.01, tracking_uri=store_uri)
    HandMadeRun(store_uri, "newer")
    assert next(states)["run_name"] == "live"


def test_nothing_is_fetched_again_without_a_change(run, store_uri, monkeypatch):
    states = follow("live", interval=0.01, tracking_uri=store_uri)
    next(states)
    asked: list[str] = []
    client = type(run.client)
    for name in ("get_run", "get_metric_history", "list_artifacts"):
        original = getattr(client, name)

        def counted(self: Any, *arguments: Any, name: str = name, original: Any = original, **options: Any) -> Any:
            asked.append(name)
            if len(asked) == 5:
                run.client.set_terminated(run.run_id, "FINISHED")
            elif len(asked) == 3:
                run.tag(heartbeat=json.dumps(silent_beat(0)))  # a beat is no change
            return original(self, *arguments, **options)

        monkeypatch.setattr(client, name, counted)
    assert next(states)["status"] == "FINISHED"
    assert asked[:5] == ["get_run"] * 5


def test_a_run_that_ended_before_is_told_once(run, store_uri, capsys):
    run.end("KILLED")
    main(["monitor", "--follow", "--tracking-uri", store_uri])
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert f"[interrupted; resume with: topotrain resume --run-id {run.run_id}]" in out


def test_a_dead_run_ends_it(run, store_uri):
    states = follow("live", interval=0.01, tracking_uri=store_uri)
    assert next(states)["alive"] is True
    run.tag(heartbeat=json.dumps(silent_beat()))
    state = next(states)
    assert (state["status"], state["alive"]) == ("RUNNING", False)
    assert "status      RUNNING (no sign of life)" in page(state)
    assert next(states, None) is None


def test_a_run_that_ends_well_between_two_questions_is_not_dead(run, store_uri, monkeypatch):
    """Its process is gone when asked for, but by then it has told its status."""
    from topotrain.tracking import heartbeat

    def gone(pid: int, started: float) -> bool:
        run.client.set_terminated(run.run_id, "FINISHED")
        return False

    monkeypatch.setattr(heartbeat, "_same_process", gone)
    state = monitor("live", tracking_uri=store_uri)
    assert state["status"] == "FINISHED"
    assert state["warnings"] == []


def test_a_run_that_is_deleted_ends_it_with_an_error(run, store_uri):
    states = follow("live", interval=0.01, tracking_uri=store_uri)
    next(states)
    run.client.delete_run(run.run_id)
    with pytest.raises(TrackingError, match="was deleted"):
        next(states)


def test_a_fault_of_ours_is_no_outage(run, store_uri, monkeypatch):
    monkeypatch.setattr(module, "run_state", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(follow("live", interval=0.01, tracking_uri=store_uri))


@pytest.mark.parametrize(
    ("lost_minutes", "back_seconds", "beat_minutes", "alive"),
    [
        (10, 1, 10.3, True),  # its last beat was heard just before the outage; the next has not come yet
        (10, 1, 13, False),  # it was dead before
        (10, 100, 12, False),  # it had time to beat again
        (0.5, 1, 1.8, True),
    ],
)
def test_beats_that_an_outage_swallowed_were_not_missed(
    store_uri, monkeypatch, lost_minutes, back_seconds, beat_minutes, alive
):
    """Seen from another machine: the run's own host is asked for its process."""
    run = HandMadeRun(store_uri, heartbeat=silent_beat(beat_minutes))
    now = datetime.now(UTC)
    watch = module._Watch(Store.open(store_uri), run.run_id)
    watch._answered = now - timedelta(minutes=lost_minutes)
    watch._silent = True
    back = now - timedelta(seconds=back_seconds)
    clock = iter([back])
    monkeypatch.setattr(module, "datetime", _Clock(lambda: next(clock, now)))
    watch._count_outage()
    monkeypatch.setattr(module, "datetime", _Clock(lambda: now))
    assert watch._run()[1] is alive


class _Clock:
    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    def now(self, zone: Any) -> datetime:
        return self._now()


def command(uri: str, *arguments: str, python: str = sys.executable) -> list[str]:
    return [python, "-m", "topotrain", "monitor", "--tracking-uri", uri, "--interval", "0.2", *arguments]


class Lines:
    """What a program prints, line by line, with a limit on waiting."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.out, self.err = process, list[str](), list[str]()
        for stream, kept in ((process.stdout, self.out), (process.stderr, self.err)):
            threading.Thread(target=lambda s=stream, k=kept: k.extend(iter(s.readline, "")), daemon=True).start()

    def wait(self, seen: Callable[[], bool]) -> None:
        wait_for(seen, lambda: (self.out, self.err))


def test_json_lines_and_ctrl_c(run, store_uri):
    process = subprocess.Popen(
        command(store_uri, "--follow", "--format", "json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines = Lines(process)
    lines.wait(lambda: len(lines.out) == 1)
    run.epochs(epoch(0.1))
    lines.wait(lambda: any(json.loads(line)["best_val_loss"] == 0.1 for line in lines.out))
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    assert [json.loads(line)["progress"]["epochs_completed"] for line in lines.out] == [2, 3]
    lines.wait(lambda: bool(lines.err))
    assert lines.err == ["error: interrupted by signal 2\n"]


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal of 40 lines and 200 columns."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))
    yield ours, theirs
    os.close(ours)


def read_until(ours: int, enough: Callable[[str], bool], seen: str = "") -> str:
    deadline = time.monotonic() + PATIENCE
    ready = select.poll()  # unlike select() it takes any file descriptor
    ready.register(ours, select.POLLIN | select.POLLHUP)
    while not enough(seen):
        assert time.monotonic() < deadline, seen
        if ready.poll(200):
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                part = b""
            if not part:
                assert enough(seen), seen
                return seen
            seen += part.decode(errors="replace")
    return seen


def test_a_terminal_is_refreshed_in_place(run, store_uri, terminal):
    ours, theirs = terminal
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        command(store_uri, "--follow"), stdout=theirs, stderr=subprocess.PIPE, text=True, env=environment
    )
    os.close(theirs)
    seen = read_until(ours, lambda text: "2 of 50 epochs" in text and "run in progress" in text)
    run.epochs(epoch(0.1))
    seen = read_until(ours, lambda text: "3 of 50 epochs" in text, seen)
    run.end()
    seen = read_until(ours, lambda text: "FINISHED" in text and "100.0 %" in text and "\x1b[?25h" in text, seen)
    assert process.wait(PATIENCE) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    # Each page begins where the one before began: the cursor goes up as many lines as that had.
    pages = re.split(r"(?:\x1b\[1A\x1b\[2K)+", seen)
    assert len(pages) >= 3
    assert [part.count("learned by") for part in pages] == [1] * len(pages), [part[:60] + part[-60:] for part in pages]
    assert seen.index("\x1b[?25l") < seen.index("\x1b[?25h"), "the cursor is back"


def test_a_terminal_is_left_as_it_was_on_sigterm(run, store_uri, terminal):
    ours, theirs = terminal
    process = subprocess.Popen(
        command(store_uri, "--follow"),
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    seen = read_until(ours, lambda text: "run in progress" in text)
    process.send_signal(signal.SIGTERM)
    seen = read_until(ours, lambda text: text.rstrip().endswith("\x1b[?25h"), seen)
    assert process.wait(PATIENCE) == 143


def test_a_terminal_says_that_the_server_is_away_until_it_is_back(run, store_uri):
    display = Display()
    display._state = monitor("live", tracking_uri=store_uri)

    def shown() -> str:
        console = Console(file=io.StringIO(), width=200)
        console.print(display._content())
        return console.file.getvalue()

    assert "server" not in shown()
    display.outage("http://there does not answer")
    assert "server      http://there does not answer; trying again" in shown()
    assert "2 of 50 epochs" in shown(), "what was known is still there"
    display.outage(None)
    assert "server" not in shown()


@pytest.mark.server
def test_a_server_that_is_killed_and_started_again_while_following(mlflow_server, monkeypatch, quick_python):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    run = HandMadeRun(mlflow_server.address, "followed").epochs(epoch(0.2))
    asked = command(mlflow_server.address, "--follow", python=quick_python)
    process = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = Lines(process)
    lines.wait(lambda: len(lines.out) == 1)
    mlflow_server.stop(signal.SIGKILL)
    lines.wait(lambda: len(lines.err) == 1)
    assert mlflow_server.address in lines.err[0]
    assert "does not answer" in lines.err[0]
    hang_up(mlflow_server.port, 6)  # several more questions without an answer, each with a second try
    assert process.poll() is None
    assert len(lines.err) == 1, "it is told once"
    mlflow_server.start()
    lines.wait(lambda: len(lines.err) == 2)
    assert lines.err[1] == "the tracking server answers again\n"
    run.epochs(epoch(0.1))
    lines.wait(lambda: "best val_loss 0.1000 at epoch 1" in lines.out[-1])
    run.end()
    assert process.wait(PATIENCE) == 0
    assert "FINISHED" in lines.out[-1]
    assert not [line for line in lines.err if "Traceback" in line]


def test_a_server_that_never_answers_is_an_error(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match="127.0.0.1:9"):
        follow("latest", tracking_uri="http://127.0.0.1:9")


def test_an_outage_is_named(run, store_uri, monkeypatch):
    def away(*_: Any, **__: Any) -> None:
        raise ConnectionError("refused")

    watch = module._Watch.of("live", None, store_uri)
    monkeypatch.setattr(type(run.client), "get_run", away)
    with pytest.raises(OutageError, match="does not answer"):
        watch.look()
