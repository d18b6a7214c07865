"""`.ci/licences` refuses what may not be distributed under Apache-2.0: shown with packages that were made up."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

CLASSIFIER = "Classifier: License :: OSI Approved :: "


def check(*arguments: str, packages: Path | None = None) -> tuple[int, str]:
    """Run the check; its exit code and what it printed."""
    command = [sys.executable, str(ROOT / ".ci" / "licences"), *arguments]
    variables = {**os.environ, "PYTHONPATH": str(packages or "")}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def install(folder: Path, metadata: str, *files: str) -> None:
    """A package `made-up` in `folder`, with these lines in its metadata and these files."""
    home = folder / "made_up-1.0.dist-info"
    home.mkdir()
    (home / "METADATA").write_text(f"Metadata-Version: 2.4\nName: made-up\nVersion: 1.0\n{metadata}\n")
    (home / "RECORD").write_text("".join(f"{file},,\n" for file in files))


@pytest.fixture
def lock(tmp_path: Path) -> str:
    path = tmp_path / "requirements.lock"
    path.write_text("made-up==1.0 \\\n    --hash=sha256:00\n")
    return str(path)


def test_no_locked_dependency_conflicts() -> None:
    code, said = check()
    assert (code, "go with Apache-2.0" in said) == (0, True), said


@pytest.mark.parametrize(
    "metadata",
    [
        "License-Expression: MIT",
        "License-Expression: GPL-3.0-only OR MIT",
        "License-Expression: (GPL-2.0-only AND SSPL-1.0) OR (MIT AND (ISC OR AGPL-3.0-only))",
        "License-Expression: MPL-2.0 AND MIT",
        f"{CLASSIFIER}MIT License\n{CLASSIFIER}Apache Software License",
        f"License: GPL-2.0-only OR MIT\n{CLASSIFIER}GNU General Public License (GPL)\n{CLASSIFIER}MIT License",
        "License: Apache License, Version 2.0",
        "License: MIT License\n        \n        Copyright (c) 2022 somebody",
    ],
)
def test_a_licence_that_leaves_an_allowed_choice_passes(metadata: str, tmp_path: Path, lock: str) -> None:
    install(tmp_path, metadata)
    code, said = check(lock, packages=tmp_path)
    assert code == 0, said


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ("License-Expression: GPL-3.0-or-later", "made-up: GPL-3.0-or-later is not"),
        ("License-Expression: MIT AND AGPL-3.0-only", "made-up: MIT AND AGPL-3.0-only is not"),
        ("License-Expression: (MIT OR ISC) AND LGPL-2.1-only", "LGPL-2.1-only is not"),
        ("License-Expression: SSPL-1.0", "made-up: SSPL-1.0 is not"),
        ("License-Expression: Apache-2.0 WITH Commons-Clause", "WITH Commons-Clause is not"),
        (f"{CLASSIFIER}GNU Affero General Public License v3", "GNU Affero General Public License v3 is not"),
        (f"{CLASSIFIER}MIT License\n{CLASSIFIER}GNU General Public License v2 (GPLv2)", "(GPLv2) is not"),
        (f"License: GPL\n{CLASSIFIER}MIT License", "made-up: GPL is not"),
        ("License: see the website", "made-up: see the website is not"),
        ("Summary: says nothing of it", "made-up: its licence is not known"),
    ],
)
def test_a_licence_that_conflicts_or_is_not_known_fails(metadata: str, named: str, tmp_path: Path, lock: str) -> None:
    install(tmp_path, metadata)
    code, said = check(lock, packages=tmp_path)
    assert (code, named in said) == (1, True), said


def test_a_package_that_is_not_installed_fails(lock: str) -> None:
    assert check(lock) == (1, "made-up: is not installed, so its licence is not known; state it in .ci/licences\n")


def test_a_library_that_a_wheel_brings_along_is_to_be_stated(tmp_path: Path, lock: str) -> None:
    install(tmp_path, "License-Expression: MIT", "made_up/__init__.py", "made_up.libs/libcopyleft-1a2b.so.1")
    code, said = check(lock, packages=tmp_path)
    assert (code, said) == (
        1,
        "made-up: brings libcopyleft-1a2b.so.1 along; state its licence in .ci/licences\n",
    )


def test_what_is_stated_by_hand_is_of_packages_that_are_locked() -> None:
    script = runpy.run_path(str(ROOT / ".ci" / "licences"))
    locked = set(re.findall(r"^([a-z0-9-]+)(?:\[[^\]]+\])?==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert {*script["STATED"], *(package for package, _ in script["BUNDLED"])} <= locked
