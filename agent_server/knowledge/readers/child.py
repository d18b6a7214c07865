"""Reads files that may be hostile, in a process of its own: `python -m agent_server.knowledge.readers.child`.

    parent -> child   a line of JSON {"suffix", "size"}, then so many bytes
    child -> parent   a line with the size of the answer, then JSON {"text", "title", "remarks"} or {"wrong", "line"} or
                      {"left_out"}

The child has limits of memory and of processor time, may write no file, and is ended when an answer takes too long. A
child that ends means that this file cannot be read; the next file is read by the next child.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from threading import Lock, Timer
from types import TracebackType
from typing import IO, Any

from agent_server.knowledge.readers import KINDS
from agent_server.knowledge.readers.base import LONGEST_TEXT, NoContent, ReadText, Unreadable

LONGEST_SECONDS = 60
"""What one file may take, of time and of processor time."""
MOST_MEMORY = 1_500_000_000
_LONGEST_ANSWER = LONGEST_TEXT * 7
"""JSON takes up to six bytes for a character."""
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")


class Child:
    """The process, started with the first file, ended with the block."""

    def __init__(self, *, seconds: float = LONGEST_SECONDS, memory: int = MOST_MEMORY) -> None:
        self._seconds, self._memory = seconds, memory
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def read(self, suffix: str, content: bytes) -> ReadText:
        """The file as Markdown. Raises Unreadable and NoContent."""
        with self._lock:
            answer = self._ask(suffix, content)
        if "wrong" in answer:
            raise Unreadable(answer["wrong"], answer["line"])
        if "left_out" in answer:
            raise NoContent(answer["left_out"])
        return ReadText(answer["text"], answer["title"], tuple((line, remark) for line, remark in answer["remarks"]))

    def _ask(self, suffix: str, content: bytes) -> dict[str, Any]:
        process = self._process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        timer = Timer(self._seconds, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps({"suffix": suffix, "size": len(content)}).encode() + b"\n" + content)
            process.stdin.flush()
            size = int(process.stdout.readline(20) or -1)
            answer = process.stdout.read(size) if 0 <= size <= _LONGEST_ANSWER else b""
            if len(answer) == size:
                parsed: dict[str, Any] = json.loads(answer)
                return parsed
        except (BrokenPipeError, ValueError):
            pass  # it has ended
        finally:
            timer.cancel()
        self._end()
        return {"wrong": "takes more memory or time than a file may; it was not read", "line": None}

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", __name__, str(int(self._seconds) + 1), str(self._memory)]
        return subprocess.Popen(  # noqa: S603  # our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean_environment()
        )

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # what was not sent yet, to a process that has ended
                    pipe.close()
        process.wait()


def clean_environment() -> dict[str, str]:
    """The variables of a process that reads what others wrote: none of the server's, which may be keys."""
    variables = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**variables, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def serve(requests: IO[bytes], answers: IO[bytes], seconds: int) -> None:
    """Answer until the parent closes its end."""
    while line := requests.readline():
        request = json.loads(line)
        allow_seconds(seconds)
        answer = json.dumps(_answer(request["suffix"], requests.read(request["size"]))).encode()
        answers.write(b"%d\n" % len(answer) + answer)
        answers.flush()


def _answer(suffix: str, content: bytes) -> dict[str, Any]:
    try:
        read = KINDS[suffix].load()(content)
        if len(read.text) > LONGEST_TEXT:
            raise Unreadable(f"has more than {LONGEST_TEXT // 1_000_000} million characters; split it")
        # NUL has no place in a text of Postgres, and half a pair is no character.
        text, title = (value.replace("\x00", "").encode(errors="replace").decode() for value in (read.text, read.title))
    except Unreadable as error:
        return {"wrong": error.message, "line": error.line}
    except NoContent as error:
        return {"left_out": error.message}
    except MemoryError:
        return {"wrong": "takes more memory than a file may; it was not read", "line": None}
    except Exception as error:  # noqa: BLE001  # whatever a library finds wrong with a file is wrong with that file alone
        return {"wrong": f"cannot be read as {suffix}: {type(error).__name__}; save it again", "line": None}
    return {"text": text, "title": title, "remarks": read.remarks}


def limit_process(memory: int) -> None:
    """So many bytes of memory for this process, and no file that it writes."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415  # not on Windows

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def allow_seconds(seconds: int) -> None:
    """So many seconds of processor time from now on, after which the system ends this process."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415  # not on Windows

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds + 1, most))


if __name__ == "__main__":
    limit_process(int(sys.argv[2]))
    # What a library prints must not stand between the answers.
    answers_out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers_out, int(sys.argv[1]))
