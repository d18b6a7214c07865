"""Products, customers and orders as CSV: what is exported comes back the same, and one bad row keeps all out."""

import csv
import io
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from agent_server import Forbidden, InvalidInput
from agent_server.testing import AgentCaller, AgentServer
from tests.tools.conftest import everything
from tests.tools.retail.shop import add_product, draft, staff
from tools.retail.csv_files import CustomerRow
from tools.retail.csv_rows import read_rows, write_rows

FILES = ("products", "customers", "orders")


async def export(clerk: AgentCaller, what: str) -> str:
    found = await clerk.call(f"export_{what}")
    exported: str = found["text"]
    return exported


async def imports(clerk: AgentCaller, what: str, file: str) -> tuple[int, int, int]:
    """How many were added, changed and left as they were."""
    done = await clerk.call(f"import_{what}", csv=file)
    return done["added"], done["changed"], done["unchanged"]


async def state(server: AgentServer) -> dict[str, list[Any]]:
    """All rows of the shop, as the database has them."""
    async with everything(server.database) as session:
        return {
            table: sorted(map(repr, (await session.execute(text(f"select * from {table}"))).all()))
            for table in ("product", "customer", "customer_order", "order_line", "order_event", "number_series")
        }


async def fill(server: AgentServer) -> AgentCaller:
    clerk = staff(server)
    await add_product(clerk, "C-BOWL", 9, name='Bowl, "large"', description="=cmd()\nsecond line; '=x")
    await add_product(clerk, "C-CUP", 9)
    await clerk.call("add_customer", name="Ann", email="ann@example.org", phone="+49 1", address="Street 1\n10 Town")
    await clerk.call("add_customer", name="Ben", account_id=str(server.as_caller("purchases:read").id), note="'quoted'")
    number = await draft(clerk, "Ann", C_BOWL=2, C_CUP=1)
    await clerk.call("set_order_line", order=number, product="C-CUP", quantity=3, discount_minor=50)
    await clerk.call("place_order", order=number)
    await draft(clerk, "Ben", C_CUP=1)
    await draft(clerk, "Ben")
    return clerk


async def test_what_was_exported_is_imported_without_a_change_and_what_was_edited_is_changed(
    agent_server: AgentServer,
) -> None:
    clerk = await fill(agent_server)
    before = await state(agent_server)
    files = {what: await export(clerk, what) for what in FILES}
    for what, file in files.items():
        added, changed, unchanged = await imports(clerk, what, file)
        assert (added, changed, unchanged > 0) == (0, 0, True), what
        # As a spreadsheet saves it elsewhere.
        table = list(csv.reader(io.StringIO(file, newline="")))
        saved = io.StringIO(newline="")
        csv.writer(saved, delimiter=";", lineterminator="\n").writerows(table)
        assert (await imports(clerk, what, f"\ufeff{saved.getvalue()}"))[:2] == (0, 0), what
        assert await export(clerk, what) == file
    assert await state(agent_server) == before
    # Nothing that a spreadsheet would run.
    cells = [cell for file in files.values() for row in csv.reader(io.StringIO(file)) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]

    products = files["products"].replace("Product C-CUP", "Cup") + "C-NEW,New one,,EUR,100,50,2000,3\r\n"
    assert await imports(clerk, "products", products) == (1, 1, files["products"].count(",EUR,") - 1)
    assert (await clerk.call("get_product", product="C-CUP"))["name"] == "Cup"
    new = await clerk.call("get_product", product="C-NEW")
    assert (new["reorder_level"], new["on_hand"], new["version"]) == (3, 0, 1)
    assert await imports(clerk, "customers", "name,email\nCara,Cara@Example.org\n") == (1, 0, 0)
    assert (await clerk.call("get_customer", customer="cara@example.org"))["name"] == "Cara"
    head = files["orders"].splitlines()[0]
    lines = "web-1,,Cara,C-NEW,2,0,,\nweb-1,,Cara,C-CUP,1,10,,\n"
    edited = files["orders"].replace("C-CUP,1,0", "C-CUP,4,0")
    assert await imports(clerk, "orders", edited) == (0, 1, 2)
    assert await imports(clerk, "orders", f"{head}\n{lines}") == (1, 0, 0)
    newest = (await clerk.call("list_orders"))["items"][0]
    order = await clerk.call("get_order", order=newest["number"])
    assert sorted((line["sku"], line["quantity"], line["discount_minor"]) for line in order["lines"]) == [
        ("C-CUP", 1, 10),
        ("C-NEW", 2, 0),
    ]


PRODUCT = "sku,name,currency,price_minor,cost_minor,tax_rate_bp"
ORDER = "order,status,customer,sku,quantity,note"
BAD = [
    ("products", f"{PRODUCT}\nX-1,Good,EUR,1,1,0\nX-2,Bad,EUR,12.50,1,0\n", "row 3, price_minor: '12.50' is not right; write a whole number"),
    ("products", f"{PRODUCT}\nX-1,,EUR,1,1,0\n", "row 2, name: is empty; write 1 to 200 characters"),
    ("products", f"{PRODUCT}\nX-1,One,EUR,1,1\n", "row 2, all: has 5 cells; write 6"),
    ("products", f"{PRODUCT}\nX-1,A,EUR,1,1,0\nx-1,B,EUR,1,1,0\n", "row 3, sku: X-1 is in row 2 already"),
    ("products", f"{PRODUCT}\nX-1,A,EUR,1,1,0\nC-CUP,B,USD,1,1,0\n", "row 3, currency: C-CUP is sold in EUR"),
    ("products", "sku,name\nX-1,A\n", "row 1 has the columns 'sku, name'; write sku, name"),
    ("products", f'{PRODUCT}\n"X-1,A\n', "is no CSV"),
    ("customers", "name,email\nCara,cara@example.org\nDan,nobody\n", "row 3, email: 'nobody' is not right; write an email address"),
    ("customers", "id,name\nx,Dan\n", "row 2, id: 'x' is not right; write the id of a customer"),
    ("orders", f"{ORDER}\nnew,,Ann,C-CUP,1,\nnew,,Ann,NO-SUCH,1,\n", "row 3, sku: There is no product"),
    ("orders", f"{ORDER}\nnew,,Ann,C-CUP,1,\nother,,Nobody,C-CUP,1,\n", "row 3, customer: There is no customer"),
    ("orders", f"{ORDER}\nnew,paid,Ann,C-CUP,1,\n", "row 2, status: a new order is a draft"),
    ("orders", f"{ORDER}\nnew,,Ann,C-CUP,1,\nnew,,Ben,C-BOWL,1,\n", "row 3, customer: is not as in the first row"),
    ("orders", f"{ORDER}\nnew,,Ann,C-CUP,1,\n999999,,Ann,C-CUP,1,\n", "row 3, order: There is no order 999999"),
]  # fmt: skip


async def test_with_one_bad_row_nothing_is_imported_and_each_is_named(agent_server: AgentServer) -> None:
    clerk = await fill(agent_server)
    before = await state(agent_server)
    for what, file, message in BAD:
        with pytest.raises(InvalidInput) as refused:
            await imports(clerk, what, file)
        assert message in refused.value.message
        assert await state(agent_server) == before, message
    many = PRODUCT + "".join(f"\nX-{n},Name,EUR,{'?' if n % 2 else 1},1,0" for n in range(60))
    with pytest.raises(
        InvalidInput, match=r"^Nothing was imported; put right rows 3, 5, 7, .* 59, 61\. row 3, "
    ) as refused:
        await imports(clerk, "products", many)
    assert [field.field for field in refused.value.fields] == [f"row {n}, price_minor" for n in range(3, 42, 2)]
    placed = next(o for o in (await clerk.call("list_orders"))["items"] if o["status"] == "placed")
    file = (await export(clerk, "orders")).replace("C-BOWL,2,0", "C-BOWL,1,0")
    with pytest.raises(InvalidInput, match=f"Order {placed['number']} is placed; only a draft can be changed"):
        await imports(clerk, "orders", file)
    assert await state(agent_server) == before
    customer = agent_server.as_caller("purchases:read")
    for what in FILES:
        for work in (export(customer, what), imports(customer, what, "x")):
            with pytest.raises(Forbidden):
                await work


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\r\t,;\"'=+-@ "), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.tuples(CELLS.filter(lambda cell: 1 <= len(cell.strip()) <= 200), CELLS, CELLS), max_size=5))
@example(rows=[("'=x", "''=x", "=x"), ("\ufeffa", "\r\n", "'")])
def test_whatever_cells_hold_they_are_read_as_they_were_written(rows: list[tuple[str, str, str]]) -> None:
    written = [{"name": name.strip(), "address": address, "note": note} for name, address, note in rows]
    found = read_rows(write_rows(["name", "address", "note"], written), CustomerRow, {})
    assert found.wrong == []
    assert [row.model_dump(include={"name", "address", "note"}) for row in found.good.values()] == written
    again = write_rows(list(CustomerRow.model_fields), (row.model_dump() for row in found.good.values()))
    assert [*read_rows(again, CustomerRow, {}).good.values()] == [*found.good.values()]
