"""The log: what a line holds, and that a log which cannot be written stops nothing."""

from __future__ import annotations

import errno
import io
import json

from node.telemetry import Level, Telemetry


class FullDisk(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_line_is_json_with_bytes_as_hexadecimal_digits() -> None:
    stream = io.StringIO()
    Telemetry(stream).emit(Level.INFO, "peer_up", peer=b"\x01\xff", software="x\ny")
    assert stream.getvalue().count("\n") == 1
    line = json.loads(stream.getvalue())
    assert (line["level"], line["event"], line["peer"], line["software"]) == ("info", "peer_up", "01ff", "x\ny")


def test_a_log_that_cannot_be_written_is_counted_and_stops_nothing() -> None:
    telemetry = Telemetry(FullDisk())
    telemetry.emit(Level.ERROR, "block_final")
    telemetry.emit(Level.DEBUG, "below the level")
    assert telemetry.lost_lines == 1
