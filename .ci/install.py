"""Install a lock and this project into .venv: `python3 .ci/install.py requirements.lock` (VENV= for another folder).

The lock is complete, so pip has nothing to resolve: `--no-deps`. With its resolver it would take `coverage[toml]`, which
a package requires, for something else than the `coverage==` of the lock, and fail on the day of coverage's next release.
`pip check` then says whether all that is required is there.

uv installs the same files in a fifth of the time. Where there is none, pip gets it first; where it fails (an index that
only pip knows of, say), pip installs what is left, and it is pip that says what is wrong. UV=never: pip alone.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from importlib.util import find_spec
from os import environ
from pathlib import Path
from shutil import which
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
SECONDS_BETWEEN_LINES = 5
"""Where the output is no terminal, and a line cannot be written over."""
NEVER_IMPORTED = r"[/\\](tests|litellm[/\\]proxy|mypyc?|pip|pkg_resources|setuptools)[/\\]"
"""A third of the sources of all packages. What else is compiled by its first import."""


def main(lock: str) -> None:
    if sys.version_info < (3, 11):
        fail(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}. Set PYTHON=")
    venv = Path(environ.get("VENV", ".venv"))
    began = time.monotonic()
    python = make_venv(venv)
    say(f"Installing {lock} ...\n")
    if not install_with_uv(python, Path(lock)):
        install_lock(python, Path(lock))
    project = ["install", "-q", "--no-deps", "--no-build-isolation", "--no-compile", "-e", str(ROOT)]
    run(pip(python, *project), f"pip could not install the project into {venv}")
    # Not left to pip, which uses one core; not left to the first import, where a warning of the compiler is shown.
    compiler = [python, "-W", "ignore", "-m", "compileall", "-qq", "-j", "0", "-x", NEVER_IMPORTED]
    subprocess.run([*compiler, str(venv)], check=False)
    run(
        pip(python, "check"),
        f"What is in {venv} does not fit together. If it was made from an older lock, delete it and try again",
    )
    say(f"Installed in {time.monotonic() - began:.0f} seconds.\n")


def make_venv(venv: Path) -> str:
    """Returns the interpreter of the environment, made if there is none."""
    python = venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if python.exists():
        return str(python)
    if find_spec("ensurepip") is None:  # Debian has it in a package of its own
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        if subprocess.run([ROOT / ".ci" / "apt", package], check=False).returncode:
            fail(f"This Python has no venv. Install it: sudo apt-get install {package}")
    run([sys.executable, "-m", "venv", str(venv)], f"{venv} could not be made")
    return str(python)


def pip(python: str, *arguments: str) -> list[str]:
    return [python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]


def install_command(python: str, lock: Path) -> list[str]:
    """The command that needs no resolver, and prints a line per package."""
    options = ["--no-deps", "--require-hashes", "--no-compile", "--progress-bar", "off"]
    return pip(python, "install", *options, "-r", str(lock))


def install_lock(python: str, lock: Path) -> None:
    """Install the lock and show how far it is: pip shows a wall of text or, with `-q`, nothing for minutes."""
    total = len(re.findall(r"^[\w.-]+==", lock.read_text(encoding="utf-8"), re.MULTILINE))
    output: list[str] = []
    done, shown = 0, time.monotonic()
    clear = "\r\033[K" if sys.stdout.isatty() else ""
    with subprocess.Popen(
        install_command(python, lock), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            total -= line.startswith("Ignoring ")  # for another system or another Python
            if package := re.match(
                r"(?:Collecting|Requirement already satisfied:) (\S+?)==|Processing \S*/(\w+)-", line
            ):
                done += 1
                if clear:
                    say(f"{clear}  {done} of {total}: {package[1] or package[2]}")
                elif time.monotonic() - shown > SECONDS_BETWEEN_LINES:
                    say(f"  {done} of {total}\n")
                    shown = time.monotonic()
            if line.startswith("Installing collected packages"):
                say(f"{clear}  {done} of {total}; unpacking ...\n")
    if process.returncode:
        fail(f"pip could not install {lock.name}:\n{told(output)}")


def install_with_uv(python: str, lock: Path) -> bool:
    """Whether uv has installed the lock. It shows on a terminal how far it is."""
    if not (uv := find_uv(python)):
        return False
    command = [uv, "pip", "install", "--python", python, "--no-deps", "--require-hashes", "-r", str(lock)]
    is_terminal = sys.stderr.isatty()
    output = None if is_terminal else subprocess.DEVNULL
    with subprocess.Popen(
        [*command, *([] if is_terminal else ["-q"])], env=uv_settings(python), stderr=output
    ) as process:
        seconds = 0
        while True:
            try:
                return process.wait(SECONDS_BETWEEN_LINES) == 0
            except subprocess.TimeoutExpired:
                seconds += SECONDS_BETWEEN_LINES
                if not is_terminal:
                    say(f"  {seconds} s\n")


def find_uv(python: str) -> str | None:
    """The path of uv, which pip installs into the environment if this machine has none."""
    if environ.get("UV") == "never":
        return None
    beside = Path(python).with_name("uv.exe" if sys.platform == "win32" else "uv")
    if not beside.exists():
        if found := which("uv"):
            return found
        subprocess.run(
            install_command(python, ROOT / ".ci" / "installer.lock"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    return str(beside) if beside.exists() else None


def uv_settings(python: str) -> dict[str, str]:
    """The variables of uv, with what pip is told of the index in its own file and variables."""
    known = subprocess.run(pip(python, "config", "list"), capture_output=True, text=True, check=False).stdout
    settings = dict(re.findall(r"^[\w:]+\.([\w-]+)='(.*)'$", known, re.MULTILINE))
    told = {"UV_DEFAULT_INDEX": settings.get("index-url"), "SSL_CERT_FILE": settings.get("cert")}
    once = {"UV_HTTP_RETRIES": "1"}  # pip tries again
    return once | {name: value for name, value in told.items() if value} | environ


def run(command: list[str], failure: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        fail(f"{failure}:\n{told(done.stdout.splitlines(keepends=True))}")


def told(output: list[str]) -> str:
    """The end of pip's output, without what it says of indexes that some machines are told of and that are not there."""
    return "".join([line for line in output if "is ignored: it is neither a file" not in line][-20:])


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def fail(message: str) -> NoReturn:
    sys.exit(message.rstrip())


if __name__ == "__main__":
    main(sys.argv[1])
