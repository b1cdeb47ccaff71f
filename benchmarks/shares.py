"""What recording and checkpoints take of a warm epoch, in this process: called by the benchmark in one of its own."""

from __future__ import annotations

import functools
import inspect
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from processes import EPOCH_LINE


class Clock:
    """Seconds of some functions in the main thread; what one calls of the others counts once, for the caller."""

    def __init__(self) -> None:
        self.taken: dict[str, float] = {}
        self.within = 0

    def around(self, name: str, function: Callable[..., Any], *, always: bool = False) -> Callable[..., Any]:
        """The function, timed; ``always`` within others too."""

        @functools.wraps(function)
        def timed(*given: Any, **named: Any) -> Any:
            if threading.current_thread() is not threading.main_thread() or (self.within and not always):
                return function(*given, **named)
            self.within += not always
            started = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self.within -= not always
                self.taken[name] = self.taken.get(name, 0.0) + time.perf_counter() - started

        return timed


class Marks(logging.Handler):
    """What the clock said when each epoch's line came."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.seen: list[tuple[float, dict[str, float]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if re.search(EPOCH_LINE, record.getMessage()):
            self.seen.append((time.perf_counter(), dict(self.clock.taken)))


def main(uri: str, overrides: Sequence[str]) -> None:
    """Train, and print two shares in percent to standard error.

    Recording is every call of the recorder, which waits for the journal alone; checkpoints are what else is done at the
    end of an epoch: writing them. What the thread that delivers takes beside the training is in neither.
    """
    from pytorch_lightning.callbacks import Checkpoint

    import topotrain
    from topotrain.tracking.recorder import Recorder
    from topotrain.training import callbacks

    clock = Clock()
    for name, function in list(vars(Recorder).items()):
        if inspect.isfunction(function) and not name.startswith("_"):
            setattr(Recorder, name, clock.around("recording", function))
    for kind in vars(callbacks).values():
        if inspect.isclass(kind) and issubclass(kind, Checkpoint) and kind is not Checkpoint:
            setattr(kind, "on_train_epoch_end", clock.around("all", kind.on_train_epoch_end, always=True))  # noqa: B010
    marks = Marks(clock)
    logger = logging.getLogger("topotrain")
    logger.setLevel(logging.INFO)
    logger.addHandler(marks)
    topotrain.fit(overrides=[*overrides, "mlflow.register=none"], tracking_uri=uri)
    (began, before), (ended, after) = marks.seen[0], marks.seen[-1]
    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    recording, span = spent["recording"], ended - began
    print(f"recording {100 * recording / span:.3f}", file=sys.stderr)
    print(f"checkpoints {100 * (spent['all'] - recording) / span:.3f}", file=sys.stderr)
