"""The example of a brief is one that works."""

from __future__ import annotations

from services.calls.brief import load_brief
from services.calls.scenario import example_text


async def test_the_example_is_filled_with_a_row(tmp_path):
    (tmp_path / "brief.yaml").write_text(example_text("brief"))
    (tmp_path / "leads.csv").write_text("name,clinic,due\nAda,Harbour Dental,3 May\nBo,Quay Clinic,4 June\n")
    brief = await load_brief(tmp_path / "brief.yaml", data=tmp_path / "leads.csv", row=2)
    assert brief.first_message == "Hello Bo, this is Quay Clinic. Do you have a minute?"
    assert brief.variables == {"customer_name": "Bo", "due_date": "4 June"}
    assert [phase.at_start for phase in brief.phases] == [True, False, False]
    assert brief.subject == "Bo, check-up due 4 June"
