"""The local user's key is in a file that nobody else reads, whatever was there before."""

import os
import stat
from pathlib import Path

import pytest

from agent_server.commands.serving import _keep_private


@pytest.mark.parametrize("mode", [None, 0o644, 0o666, 0o400])
def test_the_file_is_new_and_its_owners_alone_whatever_was_there(tmp_path: Path, mode: int | None) -> None:
    file = tmp_path / ".data" / "local-key"
    if mode is not None:
        file.parent.mkdir(mode=0o755)
        file.write_text("old")
        file.chmod(mode)
        kept_open = file.open()
    old = os.umask(0)
    try:
        _keep_private(file, "ask_new")
    finally:
        os.umask(old)
    assert file.read_text() == "ask_new\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["local-key"]
    if mode is not None:
        assert kept_open.read() == "old"  # who had it open before does not see the new one
        kept_open.close()


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / ".data").mkdir()
    (tmp_path / "shared").write_text("theirs")
    (tmp_path / ".data" / "local-key").symlink_to(tmp_path / "shared")
    _keep_private(tmp_path / ".data" / "local-key", "ask_new")
    assert (tmp_path / "shared").read_text() == "theirs"
    assert not (tmp_path / ".data" / "local-key").is_symlink()
