"""Places at which the crash harness (docs/crash.md) can end a process at once: SIGKILL, nothing tidied up.

`reach(name)` stands where something has just been done, or is just about to be. It does nothing, unless the daemon (or
`gatewayd backup`, `gatewayd restore`) was started with `GATEWAYD_CRASH_AT="NAME:N"` in its environment: then the N-th
passage of that point is the last.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping

VARIABLE = "GATEWAYD_CRASH_AT"

POINTS: Mapping[str, str] = {
    "start.locked": "the instance's lock is taken, nothing was read or written yet",
    "start.migrated": "the schema is this version's, the new epoch has not begun",
    "start.recovered": "what the last run had in hand is in doubt; no channel was opened",
    "accept.checked": "a submission is in order and goes to the writer",
    "accept.kept": "it is on disk, the caller has no answer yet",
    "writer.before_begin": "a batch was taken, its transaction has not begun",
    "writer.before_commit": "all its statements ran",
    "writer.committed": "it is on disk, and nobody knows",
    "writer.resolved": "everybody who waited was told",
    "dispatcher.claimed": "the intent is on disk, the channel was not asked yet",
    "dispatcher.submitted": "the outcome is known and not on disk",
    "modem.before_command": "AT+CMGS is about to be written",
    "modem.prompted": "the prompt came and the gate let it through; nothing of the PDU is written",
    "modem.inside_pdu": "half of the PDU is written",
    "modem.handed_over": "the PDU and Ctrl-Z are written",
    "modem.answered": "the final result came",
    "inbound.received": "a text came from the modem, and is only there",
    "inbound.kept": "it is on disk, and still in the modem",
    "report.received": "a status report came from the modem, and is only there",
    "report.kept": "it is on disk and applied, and still in the modem",
    "inbound.forgotten": "a text or a report was deleted from the SIM, or acknowledged",
    "outbox.before_call": "an event is about to be told",
    "outbox.called": "the endpoint was told, which is not on disk",
    "outbox.recorded": "that it was told is on disk",
    "operation.applied": "a step of an operation on the queue ran, and is not committed",
    "operation.stepped": "it is on disk, and the next one has not begun",
    "archive.inside_member": "retention has written half of what it archives",
    "prune.archived": "records are in the archive, and still in the spool",
    "witness.written": "the new witness file is on disk, and has not its name yet",
    "witness.renamed": "it has taken the old one's place",
    "backup.checked": "a backup is complete and checked, and has not its name yet",
    "restore.marked": "a copy of a backup is complete and marked, the spool is as it was",
    "restore.waiting": "the copy waits beside the spool, which is still in its place",
    "restore.aside": "the spool was moved aside, and nothing is in its place",
    "hold.stepped": "a step of what a restored spool takes for unsent is held",
    "hold.done": "all of it is held, and the spool still marked as restored",
    "stop.closing": "SIGTERM: the channels are closed, the clean stop is not on disk",
}
"""Every point, and what a crash there means. `tests/crash` kills the daemon at each of them."""


class _Armed:
    """The one point at which this process ends."""

    def __init__(self, name: str, passages: int) -> None:
        self.name = name
        self._left = passages
        self._lock = threading.Lock()  # the writer has a thread of its own

    def passed(self, name: str) -> None:
        if name != self.name:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
                threading.Event().wait()  # nothing else may happen before the signal has its effect


def _armed_by(value: str) -> _Armed | None:
    """What `VARIABLE` asks for. Raises ValueError for what kills nothing: it would prove nothing."""
    if not value:
        return None
    name, _, passages = value.partition(":")
    if name not in POINTS or not (passages.isascii() and passages.isdigit() and int(passages)):
        raise ValueError(
            f'{VARIABLE}={value!r}: "POINT:N" with N from 1 is expected; POINT is one of {", ".join(POINTS)}'
        )
    return _Armed(name, int(passages))


_armed = _armed_by(os.environ.get(VARIABLE, ""))


def reach(name: str) -> None:
    """This point is passed: go on, unless it is the one at which the process is to end."""
    if _armed is not None:
        _armed.passed(name)


def is_armed(name: str) -> bool:
    """Whether the process is to end at this point: for what is done in two steps only to have a point between them."""
    return _armed is not None and _armed.name == name
