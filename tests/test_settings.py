"""Settings: one place to say each, in a known order, and a mistake is named."""

import re
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_server.errors import InvalidInput
from agent_server.settings import PRESETS, Settings, find_env_files, load_settings, variable_of
from tests.conftest import ROOT

SECRET = "opens-everything-0123456789"  # what must not be seen
LINE = re.compile(r"^# ([A-Z][A-Z_]+)=(.*)$", re.MULTILINE)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and an environment that sets nothing of ours."""
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_of(field), raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def examples() -> dict[str, str]:
    """The settings of .env.example with their values as written."""
    return dict(LINE.findall((ROOT / ".env.example").read_text()))


def test_the_example_file_has_every_setting_and_no_other() -> None:
    assert sorted(examples()) == sorted(variable_of(field) for field in Settings.model_fields)


def test_the_example_file_changes_nothing_unless_a_line_is_uncommented(folder: Path) -> None:
    (folder / ".env").write_text((ROOT / ".env.example").read_text())
    assert load_settings() == Settings()


def test_each_value_in_the_example_file_is_the_default(folder: Path) -> None:
    values = {name: value for name, value in examples().items() if value}
    (folder / ".env").write_text("\n".join(f"{name}={value}" for name, value in values.items()))
    assert load_settings() == Settings()
    without = {f for f in Settings.model_fields if variable_of(f) not in values}
    assert all(Settings.model_fields[field].default in (None, ()) for field in without)


def test_the_example_file_explains_each_setting_in_the_line_above_it() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    for before, line in pairwise(lines):
        if LINE.match(line):
            assert before.startswith("# ") and not before.startswith("# ---") and not LINE.match(before), line


def test_the_documentation_names_each_setting_with_its_default() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    for name, value in examples().items():
        row = next((line for line in page.splitlines() if line.startswith(f"| `{name}`")), None)
        assert row is not None, f"docs/settings.md has no row for {name}"
        assert not value or f"| `{value}` |" in row, row


@pytest.mark.parametrize("environment", PRESETS)
def test_a_preset_sets_what_it_names_and_leaves_the_rest(environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SERVER_ENVIRONMENT", environment)
    changed = {f: v for f, v in load_settings().model_dump().items() if v != Settings.model_fields[f].default}
    changed.pop("environment", None)
    preset: dict[str, Any] = dict(PRESETS[load_settings().environment])
    assert changed == {f: v for f, v in preset.items() if v != Settings.model_fields[f].default}


def test_a_production_server_logs_json_and_waits_for_its_migrations() -> None:
    settings = load_settings(environment="production")
    assert (settings.log_format, settings.migrate) == ("json", False)


def test_an_argument_wins_over_the_environment_over_the_file_over_the_preset_over_the_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().log_format == "console"
    assert load_settings().log_level == "INFO"
    (folder / ".env").write_text("AGENT_SERVER_ENVIRONMENT=test\n")
    assert load_settings().log_level == "WARNING"
    (folder / ".env").write_text("AGENT_SERVER_ENVIRONMENT=test\nAGENT_SERVER_LOG_LEVEL=ERROR\n")
    assert load_settings().log_level == "ERROR"
    monkeypatch.setenv("AGENT_SERVER_LOG_LEVEL", "DEBUG")
    assert load_settings().log_level == "DEBUG"
    assert load_settings(log_level="WARNING").log_level == "WARNING"


PLACES = ("argument", "environment", "workspace", "folder")
"""Where a value may come from, the first that has one wins."""


@given(places=st.sets(st.sampled_from(PLACES)), named=st.sampled_from(["argument", "environment", "folder"]))
def test_of_all_places_that_have_a_value_the_first_wins_however_the_workspace_is_named(
    places: set[str], named: str
) -> None:
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as monkeypatch:
        shop, here = Path(root, "Zoë's shop"), Path(root, "here")
        for folder in (shop, here):
            folder.mkdir()
        monkeypatch.chdir(here)
        titles = {place: f"the {place}'s" for place in places}
        files = {
            folder: [f"AGENT_SERVER_TITLE={titles[name]}"] if name in titles else []
            for name, folder in (("workspace", shop), ("folder", here))
        }
        arguments: dict[str, Any] = {"title": titles.get("argument")}
        if "environment" in titles:
            monkeypatch.setenv("AGENT_SERVER_TITLE", titles["environment"])
        if named == "argument":
            arguments["workspace"] = shop
        elif named == "environment":
            monkeypatch.setenv("AGENT_SERVER_WORKSPACE", str(shop))
        else:
            files[here].append('AGENT_SERVER_WORKSPACE="../Zoë\'s shop"')
        for folder, lines in files.items():
            (folder / ".env").write_text("\n".join(lines), encoding="utf-8")
        settings = load_settings(**arguments)
        assert settings.title == next((titles[place] for place in PLACES if place in titles), "Agent server")
        assert settings.workspace.resolve() == shop.resolve()
        assert [file.resolve() for file in find_env_files(settings.workspace)] == [
            shop.resolve() / ".env",
            here.resolve() / ".env",
        ]


def test_what_a_file_sets_to_nothing_is_not_set(folder: Path) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / ".env").write_text("AGENT_SERVER_TITLE=\n")
    (folder / ".env").write_text("AGENT_SERVER_TITLE=Divers\n")
    assert load_settings(workspace=folder / "shop").title == "Divers"


def test_a_file_is_read_once_where_the_workspace_is_the_current_folder_and_may_begin_as_editors_on_windows_write(
    folder: Path,
) -> None:
    (folder / ".env").write_bytes(b"\xef\xbb\xbfAGENT_SERVER_TITLE=Divers\r\nOTHER=x\r\n")
    assert load_settings().title == "Divers"
    assert find_env_files(Path(".")) == [Path(".env")]


def test_the_workspaces_own_file_does_not_say_where_the_workspace_is(folder: Path) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / ".env").write_text("AGENT_SERVER_WORKSPACE=/elsewhere\n")
    assert load_settings(workspace=folder / "shop").workspace == folder / "shop"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("AGENT_SERVER_PORT=eighty", "as in AGENT_SERVER_PORT=8000"),
        ("AGENT_SERVER_MIGRATE=perhaps", "as in AGENT_SERVER_MIGRATE=true"),
        ("AGENT_SERVER_LOG_FORMAT=xml", "as in AGENT_SERVER_LOG_FORMAT=console"),
        ("AGENT_SERVER_ALLOWED_HOSTS=agents.example", 'is not JSON; write AGENT_SERVER_ALLOWED_HOSTS=["one", "two"]'),
        ("AGENT_SERVER_ROLES=staff", 'is not JSON; write AGENT_SERVER_ROLES={"support": ["leads:read"]}'),
        ("DATABASE_URL=mysql://db", "must start with postgresql://"),
    ],
)
def test_a_wrong_value_in_a_file_names_the_file_and_shows_one_that_is_right(
    line: str, told: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / ".env").write_text(line)
    variable, _, value = line.partition("=")
    with pytest.raises(InvalidInput) as refused:
        load_settings(workspace="shop")
    assert str(refused.value).startswith(f"{variable} in shop/.env: ")
    assert told in str(refused.value)
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidInput) as refused:
        load_settings(workspace="shop")
    assert " in shop/.env" not in str(refused.value), "the environment's value is the wrong one"


def test_a_file_that_is_no_text_is_named(folder: Path) -> None:
    (folder / ".env").write_bytes(b"AGENT_SERVER_TITLE=Caf\xe9\n")
    with pytest.raises(InvalidInput, match=r"\.env: is not text in UTF-8; save it as UTF-8"):
        load_settings()


@pytest.mark.parametrize(
    "line", ["AGENT_SERVER_PORT: 8000", "AGENT_SERVER_PORT 8000", "  export OPENAI_API_KEY", "AGENT_SERVER_PRT"]
)
def test_a_line_that_sets_nothing_is_named_and_not_passed_over(line: str, folder: Path) -> None:
    (folder / ".env").write_text(f"# AGENT_SERVER_HOST\nOTHER: x\nAGENT_SERVER_TITLE = Divers\n{line}\n")
    name = next(word for word in re.findall(r"[A-Z_]+", line))
    with pytest.raises(InvalidInput, match=rf"^\.env:4: write {name}=VALUE, as in AGENT_SERVER_PORT=8000$"):
        load_settings()


def test_every_page_that_says_what_wins_says_the_same() -> None:
    order = "an environment variable, the workspace's `.env`, the current folder's `.env`, the preset"
    for name in (".env.example", "docs/settings.md", "agent_server/scaffold/README.md"):
        text = " ".join((ROOT / name).read_text().replace("\n# ", " ").split())
        assert order in text, name
        assert "an option of the command line" in text, name


def test_an_argument_that_was_not_given_leaves_the_setting_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SERVER_PORT", "9000")
    assert load_settings(port=None).port == 9000


def test_lists_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SERVER_CORS_ORIGINS", '["https://shop.example", "https://www.example"]')
    assert load_settings().cors_origins == ("https://shop.example", "https://www.example")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AGENT_SERVER_PORT", "eighty"),
        ("AGENT_SERVER_PORT", "70000"),
        ("AGENT_SERVER_ENVIRONMENT", "prod"),
        ("AGENT_SERVER_MODEL_RETRIES", "6"),
        ("AGENT_SERVER_SEARCH_MIN_SCORE", "-1"),
        ("AGENT_SERVER_LOG_FORMAT", "xml"),
        ("DATABASE_URL", "mysql://somewhere/else"),
    ],
)
def test_a_bad_value_is_named_with_its_variable(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidInput, match=variable) as refused:
        load_settings()
    assert [field.field for field in refused.value.fields] == [variable]


def test_all_bad_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SERVER_PORT", "eighty")
    monkeypatch.setenv("AGENT_SERVER_TOOL_TIMEOUT", "0")
    with pytest.raises(InvalidInput) as refused:
        load_settings()
    assert {field.field for field in refused.value.fields} == {"AGENT_SERVER_PORT", "AGENT_SERVER_TOOL_TIMEOUT"}


def test_secrets_are_not_in_the_representation_or_in_a_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = [f for f in Settings.model_fields if f.endswith("_api_key")]
    for field in secrets:
        monkeypatch.setenv(variable_of(field), SECRET)
    monkeypatch.setenv("DATABASE_URL", f"postgresql://me:{SECRET}@127.0.0.1/db")
    settings = load_settings()
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump_json()}"
    assert all(getattr(settings, field).get_secret_value() == SECRET for field in secrets)
    monkeypatch.setenv("DATABASE_URL", f"mysql://me:{SECRET}@127.0.0.1/db")
    with pytest.raises(InvalidInput) as refused:
        load_settings()
    assert SECRET not in str(refused.value)


def test_settings_do_not_change_once_they_are_read() -> None:
    settings, field = load_settings(), "port"
    with pytest.raises(ValueError, match="frozen"):
        setattr(settings, field, 1)
