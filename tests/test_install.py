"""A lock is complete: it is installed without a resolver, and what others release meanwhile changes nothing."""

import ensurepip
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import ROOT

INSTALLED = os.environ.get("LOCK", "requirements-dev.lock")
"""The lock that this environment was made from (`make quick LOCK=requirements-oldest.lock`)."""
PIN = re.compile(r"^([\w.-]+==[^\\\n]+?) *\\$", re.MULTILINE)
WITHOUT_SETTINGS = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")} | {
    "PIP_CONFIG_FILE": os.devnull
}


def pins(lock: str) -> dict[str, str]:
    """The version of each package of a lock that is for this system and this Python."""
    pinned = [Requirement(pin) for pin in PIN.findall((ROOT / lock).read_text())]
    here = [pin for pin in pinned if pin.marker is None or pin.marker.evaluate()]
    return {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in here}


def requirements(name: str, extras: set[str]) -> Iterator[Requirement]:
    """What an installed package requires here, when it is required with these extras."""
    for line in distribution(name).requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in ("", *extras)):
            yield requirement


def not_locked(locked: dict[str, str], extras: set[str]) -> set[str]:
    """What is required, from the project on, and is not in a lock."""
    missing, seen, waiting = set(), set(), [Requirement(f"agent-server[{','.join(extras)}]")]
    while waiting:
        asking = waiting.pop()
        asker = canonicalize_name(asking.name)
        if (asker, *sorted(asking.extras)) in seen:
            continue
        seen.add((asker, *sorted(asking.extras)))
        if asker in locked and distribution(asker).version != locked[asker]:
            missing.add(f"{asker}=={locked[asker]}, which is installed as {distribution(asker).version}")
        for required in requirements(asker, asking.extras):
            version = locked.get(canonicalize_name(required.name))
            if version is None or not required.specifier.contains(version, prereleases=True):
                missing.add(f"{required}, for {asker}")
            else:
                waiting.append(required)
    return missing


@pytest.mark.parametrize(
    ("lock", "extras"),
    [(INSTALLED, {"build", "dev"})]
    if INSTALLED != "requirements-dev.lock"
    else [("requirements.lock", {"build"}), ("requirements-dev.lock", {"build", "dev"})],
)
def test_a_lock_has_all_that_is_required_with_the_extras_it_is_required_with(lock: str, extras: set[str]) -> None:
    locked = pins(lock)
    assert len(locked) > 50
    assert not_locked(locked, extras) == set()


def test_what_is_missing_in_a_lock_is_seen() -> None:
    locked = pins(INSTALLED)
    without = {name: version for name, version in locked.items() if name not in ("cryptography", "greenlet")}
    found = {missing.rpartition(", for ")[2] for missing in not_locked(without, {"build", "dev"})}
    assert {"pyjwt", "sqlalchemy"} <= found  # which require these by an extra


def test_the_lock_of_the_tests_holds_that_of_the_server() -> None:
    assert pins("requirements.lock").items() <= pins("requirements-dev.lock").items()


def test_the_oldest_set_is_one_that_the_project_supports() -> None:
    oldest, newest = pins("requirements-oldest.lock"), pins("requirements-dev.lock")
    direct = {canonicalize_name(r.name): r for r in requirements("agent-server", {"build", "dev"})}
    for name, required in direct.items():
        assert required.specifier.contains(oldest[name]), required
    older = {name for name in direct if Version(oldest[name]) < Version(newest[name])}
    assert len(older) > len(direct) / 2
    assert not {name for name in direct if Version(oldest[name]) > Version(newest[name])}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder of packages: one that requires another with an extra, and a newer release of that other."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, version, requires in [
        ("asker", "1.0", "Requires-Dist: asked[more]>=1\n"),
        ("asked", "1.0", "Provides-Extra: more\n"),
        ("asked", "2.0", "Provides-Extra: more\n"),
    ]:
        with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            info = f"{name}-{version}.dist-info"
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    return folder


def write_lock(index: Path, *names: str) -> Path:
    lock = index.parent / "some.lock"
    lines = []
    for name in names:
        wheel = (index / f"{name}-1.0-py3-none-any.whl").read_bytes()
        lines.append(f"{name}==1.0 \\\n    --hash=sha256:{hashlib.sha256(wheel).hexdigest()}\n")
    lock.write_text("".join(lines))
    return lock


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=WITHOUT_SETTINGS, capture_output=True, text=True, check=False)


@pytest.fixture
def python(tmp_path: Path) -> str:
    """The interpreter of an environment with nothing in it, not even pip."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    return str(next(path for name in ("bin/python", "Scripts/python.exe") if (path := venv / name).exists()))


def load_installer() -> Any:
    spec = spec_from_file_location("install", ROOT / ".ci" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    install = module_from_spec(spec)
    spec.loader.exec_module(install)
    return install


def commands(python: str, index: Path, lock: Path) -> tuple[list[str], list[str]]:
    """How `.ci/install.py` installs a lock, and how it looks at what came of it, here with these packages."""
    install = load_installer()
    pip: list[str] = install.pip(sys.executable)
    options: list[str] = install.install_command(sys.executable, lock)[len(pip) :]
    there = [*pip, "--python", python]
    return [*there, *options, "--no-index", "--find-links", str(index)], [*there, "check"]


def test_a_newer_release_of_what_is_required_with_an_extra_changes_nothing(python: str, index: Path) -> None:
    install, check = commands(python, index, write_lock(index, "asker", "asked"))
    installed = run(install)
    assert "Successfully installed asked-1.0 asker-1.0" in installed.stdout, installed.stderr
    assert run(check).returncode == 0


def test_the_pip_that_comes_with_python_takes_it_as_well(python: str, index: Path) -> None:
    """An old one does not where it resolves: "all requirements must have their versions pinned", it says of asked[more]."""
    if (wheel := next(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"), None)) is None:
        pytest.skip("this Python comes without pip")
    install, _ = commands(python, index, write_lock(index, "asked", "asker"))
    install.remove("--python")  # with which pip starts twice, and is compiled anew from its wheel each time
    install.remove(python)
    installed = run([python, str(wheel / "pip"), *install[install.index("pip") + 1 :]])
    assert "Successfully installed asked-1.0 asker-1.0" in installed.stdout, installed.stderr


def test_a_lock_that_is_not_complete_is_noticed(python: str, index: Path) -> None:
    install, check = commands(python, index, write_lock(index, "asker"))
    assert run(install).returncode == 0
    checked = run(check)
    assert checked.returncode != 0
    assert "asker 1.0 requires asked, which is not installed" in checked.stdout


def test_a_package_that_is_not_the_locked_one_is_refused(python: str, index: Path) -> None:
    lock = write_lock(index, "asked")
    install, _ = commands(python, index, lock)
    lock.write_text(re.sub("sha256:.{4}", "sha256:0000", lock.read_text()))
    assert "DO NOT MATCH THE HASHES" in run(install).stderr


@pytest.mark.needs("sockets")  # so is the uv of this test, which is a shell script
@pytest.mark.parametrize(("ends", "installed"), [("exit 0", True), ("exit 2", False)])
def test_what_uv_could_not_install_is_left_to_pip(python: str, index: Path, ends: str, installed: bool) -> None:
    lock = write_lock(index, "asked")
    uv = Path(python).with_name("uv")
    uv.write_text(f'#!/bin/sh\necho "$@" > {index}/arguments\n{ends}\n')
    uv.chmod(0o755)
    assert load_installer().install_with_uv(python, lock) is installed
    arguments = (index / "arguments").read_text().split()
    assert {"--no-deps", "--require-hashes", str(lock)} <= set(arguments)


def test_uv_itself_is_installed_by_its_hash() -> None:
    assert list(pins(".ci/installer.lock")) == ["uv"]
