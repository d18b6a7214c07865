"""Server-sent events -> their data (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from collections.abc import Iterator

_BYTE_ORDER_MARK = "\ufeff".encode()


class EventStream:
    """Reads an event stream that comes in blocks, cut anywhere. Only the data of its events is read."""

    def __init__(self) -> None:
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._after_return = False

    def read(self, block: bytes) -> Iterator[str]:
        """The data of the events that end in a block. Events without data are left out."""
        if self._after_return and block:
            block = block.removeprefix(b"\n")
            self._after_return = False
        if b"\r" in block:
            # One that ends a block may be half of an end of a line.
            self._after_return = block.endswith(b"\r")
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, *rest = block.split(b"\n")
        self._line.append(first)
        for begin in rest:
            if (data := self._take(b"".join(self._line))) is not None:
                yield data
            self._line = [begin]

    def _take(self, line: bytes) -> str | None:
        """Take in a line. Returns the data of the event that it ends."""
        if not line:
            data, self._data = b"\n".join(self._data), []
            return str(data, "utf-8") or None
        if not line.startswith(b"data"):
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line == b"data":
            self._data.append(b"")
        return None
