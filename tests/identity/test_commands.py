"""`agent-server user` and `key`: what an operator does to accounts, and what is on record of it."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dirty_equals import IsPartialDict, IsStr
from typer.testing import CliRunner, Result

from agent_server.cli import app
from agent_server.db import Database
from agent_server.errors import Unauthorized
from agent_server.identity.accounts import Accounts, Act
from agent_server.identity.resolver import Resolver
from agent_server.log import configure_logging
from tests.commands import OUR_VARIABLES
from tests.conftest import ROOT, fetch

PASSWORD = "a password of Ann's"
Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stocked_url: str) -> Iterator[Run]:
    """Run a command on a database of the test's own."""
    for variable in OUR_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AGENT_SERVER_WORKSPACE", str(ROOT))
    monkeypatch.setenv("DATABASE_URL", stocked_url)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, arguments, input=stdin, catch_exceptions=False)

    yield run
    configure_logging("WARNING", "console")


def done(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout) if result.stdout.startswith(("{", "[")) else result.stdout


def test_accounts_and_pages_need_nothing_of_tools_and_prompts(run: Run, tmp_path: Path) -> None:
    for folder, file, text in (
        ("tools", "broken.py", "raise SystemExit\n"),
        ("prompts", "broken.md", "no front matter\n"),
        ("content/guide", "a.md", "# Fins\n\nFins are for swimming.\n"),
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / file).write_text(text)
    (tmp_path / "migrations").symlink_to(ROOT / "migrations")  # those that this database has
    there = ("--workspace", str(tmp_path))
    assert done(run("user", "create", "bob", "--json", *there)) == IsPartialDict(name="bob")
    assert done(run("user", "role", "bob", "--role", "admin", *there)) == "bob: works; roles: admin\n"
    key = done(run("key", "create", "--user", "bob", "--json", *there))
    assert key["scopes"] == ["*"]
    assert key["id"] in {row["id"] for row in done(run("key", "list", "--json", *there))}
    done(run("key", "revoke", key["id"], *there))
    done(run("key", "create", "--user", "bob", "--scope", "tasks:read", *there))
    assert done(run("content", "ingest", "--json", *there)) == IsPartialDict(added=1)
    assert "guide/a.md" in done(run("content", "search", "fins", *there))
    nowhere = run("key", "list", "--workspace", str(tmp_path / "nowhere"))
    assert (nowhere.exit_code, "there is no such folder" in nowhere.stderr) == (1, True)
    assert not (tmp_path / "nowhere").exists()


def _users(run: Run) -> dict[str, Any]:
    return {user["name"]: user for user in done(run("user", "list", "--json"))}


@pytest.mark.parametrize(
    ("arguments", "stdin", "complaint"),
    [
        (("create", "ann", "--password-stdin"), PASSWORD, "invalid_input: email: signing in takes an e-mail address"),
        (("create", "ann", "--email", "ann", "--password-stdin"), PASSWORD, "invalid_input: email: "),
        (
            ("create", "ann", "--email", "a@example.com", "--password-stdin"),
            "short",
            "invalid_input: password: takes 8",
        ),
        (("create", "ann", "--email", "a@example.com", "--password-stdin"), "", "invalid_input: password: takes 8"),
        (
            ("create", "ann", "--role", "king"),
            None,
            "invalid_input: roles: there is no role 'king'; there are admin, staff",
        ),
        (("disable", "nobody"), None, "invalid_input: There is no user 'nobody'"),
        (("role", "nobody", "--role", "admin"), None, "invalid_input: There is no user 'nobody'"),
    ],
)
def test_what_cannot_be_done_to_a_user_is_said(
    run: Run, arguments: tuple[str, ...], stdin: str | None, complaint: str
) -> None:
    refused = run("user", *arguments, stdin=stdin)
    assert refused.exit_code == 1
    assert complaint in refused.stderr
    assert _users(run) == {}


def test_a_password_is_taken_from_standard_input_only(run: Run) -> None:
    assert run("user", "password", "ann").exit_code == 2
    assert run("user", "create", "ann", "--password", PASSWORD).exit_code == 2


def test_an_operator_makes_changes_and_cuts_off_a_user(run: Run, stocked_url: str) -> None:
    made = done(
        run(
            "user",
            "create",
            "ann",
            "--email",
            "Ann@Example.com",
            "--password-stdin",
            "--role",
            "staff",
            "--json",
            stdin=f"{PASSWORD}\n",
        )
    )
    assert made == {"id": IsStr(), "name": "ann", "email": "ann@example.com", "roles": ["staff"]}
    assert _users(run)["ann"] == IsPartialDict(id=made["id"], roles=["staff"], disabled_at=None)
    key = done(run("key", "create", "--user", "ann", "--scope", "tasks:read", "--json"))
    assert key == IsPartialDict(last_used_at=None)
    assert asyncio.run(_works(stocked_url, key["key"]))
    (listed,) = done(run("key", "list", "--json"))
    assert listed["last_used_at"] is not None
    assert "used 20" in done(run("key", "list"))
    assert done(run("user", "role", "ann")) == "ann: works; roles: user\n"
    assert done(run("user", "role", "ann", "--role", "staff", "--role", "admin")) == "ann: works; roles: admin staff\n"
    assert "ann: disabled" in done(run("user", "disable", "ann"))
    assert not asyncio.run(_works(stocked_url, key["key"]))
    assert "ann: works" in done(run("user", "enable", "ann"))
    assert asyncio.run(_works(stocked_url, key["key"]))
    before = asyncio.run(fetch(stocked_url, "select password_hash from account"))
    assert "ann: works" in done(run("user", "password", "ann", "--password-stdin", stdin="another of hers\n"))
    assert asyncio.run(fetch(stocked_url, "select password_hash from account")) != before
    done(run("key", "revoke", key["id"]))
    assert not asyncio.run(_works(stocked_url, key["key"]))
    acts = asyncio.run(fetch(stocked_url, "select owner_id::text, action, caller_kind, surface from audit order by id"))
    assert acts == [
        (made["id"], action, "operator", "cli")
        for action in ("user.created", "key.created", *["user.changed"] * 5, "key.revoked")
    ]


OWN = ["account:read", "account:write", "conversations:read", "keys:read"]


def test_a_key_that_names_no_scope_has_what_the_users_roles_give(run: Run, stocked_url: str) -> None:
    for name, roles in (("ann", ()), ("sam", ("staff",)), ("ada", ("admin",))):
        made = done(run("user", "create", name, *(word for role in roles for word in ("--role", role))))
        command = made.rpartition("agent-server ")[2].split()
        assert command == ["key", "create", "--user", name]
        scopes = set(done(run(*command, "--json"))["scopes"])
        match name:
            case "ann":
                assert scopes >= set(OWN) and not scopes & {"*", "users:read", "users:write"}
            case "sam":
                assert scopes >= {*OWN, "users:read", "audit:read"} and not scopes & {"*", "users:write"}
            case _:
                assert scopes == {"*"}
    assert done(run("key", "create", "--user", "ann", "--scope", "*", "--json"))["scopes"] == ["*"]
    assert done(run("key", "create", "--json")) == IsPartialDict(scopes=["*"], user="local")
    assert _users(run)["local"] == IsPartialDict(roles=["admin"])


def test_such_a_key_follows_the_users_roles_and_one_with_scopes_does_not(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(run("user", "create", "ann"))
    keys = [done(run("key", "create", "--user", "ann", *more, "--json"))["key"] for more in ((), ("--scope", "*"))]

    def may_list_tasks(key: str) -> bool:
        monkeypatch.setenv("AGENT_SERVER_KEY", key)
        called = run("tool", "call", "list_tasks")
        monkeypatch.delenv("AGENT_SERVER_KEY")
        return called.exit_code == 0

    assert [may_list_tasks(key) for key in keys] == [True, True]
    monkeypatch.setenv("AGENT_SERVER_ROLES", '{"bare": ["account:read"]}')
    done(run("user", "role", "ann", "--role", "bare"))
    assert [may_list_tasks(key) for key in keys] == [False, True]


def test_ending_a_key_ends_those_made_with_it(run: Run, stocked_url: str) -> None:
    first = done(run("key", "create", "--scope", "keys:*", "--json"))
    second = asyncio.run(_make_key_with(stocked_url, first["key"]))
    assert asyncio.run(_works(stocked_url, second))
    done(run("key", "revoke", first["id"]))
    assert not asyncio.run(_works(stocked_url, second))


async def _make_key_with(url: str, key: str) -> str:
    database = Database(url)
    accounts = Accounts(database, Resolver(database))
    made = await accounts.make_key(Act(surface="rest"), await accounts.resolver.resolve(key), "k", ["keys:read"], None)
    await database.close()
    return made.text


async def _works(url: str, key: str) -> bool:
    database = Database(url)
    try:
        await Resolver(database).resolve(key)
    except Unauthorized:
        return False
    finally:
        await database.close()
    return True
