"""compose.yaml gives each container what it needs and nothing else."""

from typing import Any

import pytest
import yaml

from agent_server.settings import Settings, load_settings, variable_of
from tests.conftest import ROOT

OF_ITS_OWN = {"DATABASE_DIRECT_URL", "DATABASE_OWNER_URL"}
"""Settings that the server here has no use for: there is no pooler, and the owner's address is the migration's."""


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return services


def test_a_container_is_given_variables_by_name_and_no_file_of_them(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert isinstance(service["environment"], dict), name
        assert service.keys().isdisjoint({"env_file", "secrets", "configs", "extends"}), name


def test_the_server_is_given_every_setting_and_nothing_of_the_owner_of_the_tables(services: dict[str, Any]) -> None:
    given = services["server"]["environment"]
    assert given.keys() == {variable_of(field) for field in Settings.model_fields} - OF_ITS_OWN
    assert not any("POSTGRES" in str(value) for value in given.values())
    assert [name for name, value in given.items() if "PASSWORD" in str(value)] == ["DATABASE_URL"]


def test_the_migration_is_given_no_more_than_how_to_reach_the_database(services: dict[str, Any]) -> None:
    given = services["migrate"]["environment"]
    names = ("ENVIRONMENT", "HOST", "PORT", "ALLOWED_HOSTS", "WORKSPACE")
    assert given.keys() == {"DATABASE_URL", "DATABASE_OWNER_URL", *(f"AGENT_SERVER_{name}" for name in names)}


def test_what_is_not_in_the_file_beside_it_is_not_set(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compose leaves out a variable without a value; one that it sets to nothing would be read by vendors' libraries."""
    set_here = {name: value for name, value in services["server"]["environment"].items() if value is not None}
    assert set_here.keys() == {
        *("DATABASE_URL", "AGENT_SERVER_ENVIRONMENT", "AGENT_SERVER_HOST", "AGENT_SERVER_PORT"),
        *("AGENT_SERVER_ALLOWED_HOSTS", "AGENT_SERVER_WORKSPACE"),
    }
    for name, value in set_here.items():
        monkeypatch.setenv(name, value if "${" not in value else "")
    assert load_settings(_env_file=None).environment == "production"
