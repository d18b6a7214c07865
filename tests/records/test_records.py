"""Soft delete, versions, audit columns and rows for staff, on tables that only these tests have."""

import re

from tests.conftest import ROOT, SERVER, TEMPLATE
from tests.zygote import run_pytest


def test_records_are_kept_as_their_models_say(postgres: str, template: str) -> None:
    # In a process of their own: the models of shop.py would be tables of every test of this one.
    done = run_pytest(ROOT, "-o", "addopts=", "tests/records/cases.py", **{SERVER: postgres, TEMPLATE: template})
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b14 passed", done.stdout), done.stdout
