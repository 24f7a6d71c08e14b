"""Reading server-sent events as their bytes come in."""

from __future__ import annotations


class EventReader:
    """Gives the data of events; their names, ids and comments are left out."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes of a stream; gives the data of every event that they complete."""
        if self._rest:
            data = self._rest + data
        elif (
            data.startswith(b"data: ")
            and data.find(b"\n") == data.find(b"\n\n") == len(data) - 2
            and b"\r" not in data
        ):
            return [data[6:-2]]  # one whole event, as it mostly comes
        held = b""
        if b"\r" in data:
            if data.endswith(b"\r"):  # perhaps half of a line's end
                data, held = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *events, rest = data.split(b"\n\n")
        self._rest = rest + held
        return [text for event in events if (text := _data(event)) is not None]


def _data(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event:  # how servers of models write them
        return event[6:]
    lines = [line for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines) if lines else None
