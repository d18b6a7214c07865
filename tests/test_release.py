"""`.ci/release` cuts a release, or says what is in its way: shown in a repository made for each test."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.conftest import ROOT

URLS_GO_HERE = "# `make release` writes [project.urls] here, from the address of `origin`"
METADATA = f"""[project]
name = "made-up"

[project.scripts]
made-up = "made_up:main"

{URLS_GO_HERE}

[tool.made-up]
"""
CHANGES = """# Changelog

What changes.

## Unreleased

- **Wishes** are kept.

## 0.1.0

The first version.
"""


class Checkout:
    """A repository with what a release is made of, at version 0.1.0 and something unreleased."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in (".ci", "agent_server"):
            (root / folder).mkdir()
        shutil.copy(ROOT / ".ci" / "release", root / ".ci")
        self.write("agent_server/version.py", 'VERSION = "0.1.0"\n')
        self.write("pyproject.toml", METADATA)
        self.write("CHANGELOG.md", CHANGES)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("remote", "add", "origin", "https://agents.example/acme/agents.git")
        self.commit()

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        person = {f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        variables = {**os.environ, **person, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        return subprocess.run(command, cwd=self.root, env=variables, capture_output=True, text=True, check=False)

    def git(self, *arguments: str) -> str:
        done = self.run("git", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Change something")

    def release(self, *arguments: str) -> tuple[int, str]:
        """Run the script; its exit code and what it printed."""
        done = self.run(sys.executable, self.root / ".ci" / "release", *arguments)
        return done.returncode, (done.stdout + done.stderr).strip()

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_version_changelog_and_tag_of_this_repository_agree() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    done = subprocess.run([sys.executable, ROOT / ".ci" / "release", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_release_sets_the_version_dates_the_changelog_commits_and_tags(checkout: Checkout) -> None:
    code, said = checkout.release("0.2.0")
    assert (code, "git push --atomic origin main v0.2.0" in said) == (0, True), said
    assert checkout.read("agent_server/version.py") == 'VERSION = "0.2.0"\n'
    assert re.sub(r"\d{4}-\d\d-\d\d", "today", checkout.read("CHANGELOG.md")) == CHANGES.replace(
        "## Unreleased", "## 0.2.0 (today)"
    )
    assert checkout.git("status", "--porcelain") == ""
    assert checkout.git("log", "-1", "--format=%s %D") == "Release 0.2.0 HEAD -> main, tag: v0.2.0"
    assert "- **Wishes** are kept." in checkout.git("tag", "--list", "--format=%(contents)", "v0.2.0")
    assert checkout.release("--notes") == (0, "- **Wishes** are kept.")
    assert checkout.release("--check", "v0.2.0")[0] == 0


@pytest.mark.parametrize(
    "remote",
    [
        "https://agents.example/acme/agents",
        "https://someone:canary@agents.example/acme/agents.git",
        "git@agents.example:acme/agents.git",
        "ssh://git@agents.example:2222/acme/agents.git",
    ],
)
def test_the_first_release_takes_its_urls_from_origin(checkout: Checkout, remote: str) -> None:
    checkout.git("remote", "set-url", "origin", remote)
    assert checkout.release("0.2.0")[0] == 0
    project = tomllib.loads(checkout.read("pyproject.toml"))["project"]
    assert project["urls"] == {
        "Repository": "https://agents.example/acme/agents",
        "Documentation": "https://agents.example/acme/agents/tree/HEAD/docs",
        "Changelog": "https://agents.example/acme/agents/blob/HEAD/CHANGELOG.md",
        "Issues": "https://agents.example/acme/agents/issues",
    }
    assert project["scripts"] == {"made-up": "made_up:main"}


def test_this_repository_has_urls_or_the_place_for_them() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert "urls" in tomllib.loads(text)["project"] or f"\n{URLS_GO_HERE}" in text


def test_the_next_release_leaves_the_urls_as_they_are(checkout: Checkout) -> None:
    assert checkout.release("0.2.0")[0] == 0
    before = checkout.read("pyproject.toml")
    checkout.write(
        "CHANGELOG.md", checkout.read("CHANGELOG.md").replace("## 0.2.0", "## Unreleased\n\n- More.\n\n## 0.2.0")
    )
    checkout.commit()
    checkout.git("remote", "set-url", "origin", "https://elsewhere.example/acme/agents")
    assert checkout.release("0.2.1")[0] == 0
    assert checkout.read("pyproject.toml") == before


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("", "nothing is not a version, as in `make release VERSION=1.2.3`"),
        ("v0.2.0", "v0.2.0 is not a version, as in `make release VERSION=1.2.3`"),
        ("0.2", "0.2 is not a version, as in `make release VERSION=1.2.3`"),
        ("0.1.0", "after 0.1.0 comes 0.1.1, 0.2.0 or 1.0.0, not 0.1.0"),
        ("0.20.0", "after 0.1.0 comes 0.1.1, 0.2.0 or 1.0.0, not 0.20.0"),
    ],
)
def test_what_is_not_the_next_version_is_refused(checkout: Checkout, version: str, said: str) -> None:
    refused(checkout, said, version)


def test_a_working_tree_with_changes_is_refused(checkout: Checkout) -> None:
    checkout.write("notes.txt", "not committed")
    refused(checkout, "the working tree has changes: commit them, or put them away")


def test_an_empty_changelog_is_refused(checkout: Checkout) -> None:
    checkout.write("CHANGELOG.md", CHANGES.replace("- **Wishes** are kept.\n", ""))
    checkout.commit()
    refused(checkout, "`## Unreleased` of CHANGELOG.md is empty: say what changes for whoever uses or runs the server")


def test_a_changelog_with_nothing_to_release_is_refused(checkout: Checkout) -> None:
    checkout.write("CHANGELOG.md", "# Changelog\n\n## 0.1.0\n\nThe first version.\n")
    checkout.commit()
    refused(checkout, "CHANGELOG.md does not begin with `## Unreleased`: there is nothing to release")


def test_a_tag_that_is_there_already_is_refused(checkout: Checkout) -> None:
    checkout.git("tag", "v0.2.0")
    checkout.write("notes.txt", "later")
    checkout.commit()
    refused(checkout, "there is a tag v0.2.0 already")


def test_a_release_on_no_branch_is_refused(checkout: Checkout) -> None:
    checkout.git("checkout", "--quiet", "--detach")
    refused(checkout, "no branch is checked out: the release would be on none")


@pytest.mark.parametrize("remote", ["", "https://localhost/acme/agents", "https://agents.example:8443/acme/agents"])
def test_a_repository_without_a_web_address_is_refused(checkout: Checkout, remote: str) -> None:
    checkout.git("remote", "set-url", "origin", remote or str(checkout.root))
    code, said = checkout.release("0.2.0")
    assert (code, "no [project.urls], and `origin` has no web address" in said) == (1, True), said


def test_a_commit_that_a_hook_refuses_leaves_everything_as_it_was(checkout: Checkout) -> None:
    hook = checkout.root / ".git" / "hooks" / "pre-commit"
    hook.write_text("#!/bin/sh\necho 'not like this' >&2\nexit 1\n")
    hook.chmod(0o755)
    refused(checkout, "git commit: not like this")


def refused(checkout: Checkout, said: str, version: str = "0.2.0") -> None:
    """Ask for a release; it is refused with these words and changes nothing."""
    before = checkout.git("rev-parse", "HEAD"), checkout.git("status", "--porcelain"), checkout.git("tag")
    assert checkout.release(version) == (1, said)
    assert (checkout.git("rev-parse", "HEAD"), checkout.git("status", "--porcelain"), checkout.git("tag")) == before


@pytest.mark.parametrize(
    ("changelog", "said"),
    [
        ("## 0.2.0 (2026-01-31)\n", "agent_server/version.py says 0.1.0, the newest version of CHANGELOG.md is 0.2.0"),
        ("## Unreleased\n", "CHANGELOG.md has no version"),
        ("## 0.1.0\n## Unreleased\n", "`## Unreleased` of CHANGELOG.md is not its first section"),
        ("## 0.1.0\n## 0.2.0\n", "the versions of CHANGELOG.md are not each lower than the one above"),
        (
            "## 0.1.0 (31.1.2026)\n",
            "`## 0.1.0` of CHANGELOG.md is neither `Unreleased` nor as in `1.2.3 (2026-01-31)`",
        ),
        ("## Next\n", "`## Next` of CHANGELOG.md is neither `Unreleased` nor as in `1.2.3 (2026-01-31)`"),
    ],
)
def test_a_changelog_that_does_not_fit_the_version_is_named(checkout: Checkout, changelog: str, said: str) -> None:
    checkout.write("CHANGELOG.md", changelog)
    assert checkout.release("--check") == (1, said)


def test_a_tag_of_another_version_is_named(checkout: Checkout) -> None:
    checkout.git("tag", "v0.3.0")
    assert checkout.release("--check") == (1, "the tag v0.3.0 is on version 0.1.0")


def test_a_tag_beside_unreleased_changes_is_named(checkout: Checkout) -> None:
    checkout.git("tag", "v0.1.0")
    said = "the tag v0.1.0 is here, and CHANGELOG.md does not begin with that version and its day"
    assert checkout.release("--check") == (1, said)


def test_what_is_checked_out_must_be_the_release_that_is_named(checkout: Checkout) -> None:
    assert checkout.release("0.2.0")[0] == 0
    checkout.write("notes.txt", "later")
    checkout.commit()
    assert checkout.release("--check")[0] == 0
    assert checkout.release("--check", "v0.2.0") == (1, "the tag v0.2.0 is not on what is checked out")


def test_the_wheel_carries_the_licence_and_says_whose_it_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        home = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")).rpartition("/")[0]
        metadata = message_from_bytes(wheel.read(f"{home}/METADATA"))
        assert wheel.read(f"{home}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Author"] == "the Agent server authors"
    assert metadata["Keywords"]
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
