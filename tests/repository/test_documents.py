"""What README and docs show is what the product takes and says."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from membudget_cli.arguments import parser
from membudget_contract.compile import compile_policy
from membudget_contract.crd import custom_resource_definition
from membudget_contract.policy import parse_policy
from membudget_contract.policy_status import REASONS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_policy_in_the_readme_compiles() -> None:
    """R-P05: a reader who copies it gets a plan."""
    shown = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    plans = [compile_policy(parse_policy(yaml.safe_load(text))) for text in shown]
    assert [plan.total for plan in plans] == ["150Mi"]


def test_the_readme_shows_policies_in_the_columns_that_kubectl_prints() -> None:
    """R-P01: the definition's own, with the namespace that `--all-namespaces` puts before them."""
    shown = next(line for line in README.splitlines() if line.startswith("NAMESPACE"))
    columns = custom_resource_definition()["spec"]["versions"][0]["additionalPrinterColumns"]
    printed = [column["name"].upper() for column in columns if not column.get("priority")]
    assert ["NAMESPACE", "NAME", *printed] == shown.split()


def test_every_command_of_the_command_line_has_its_place_in_the_readme() -> None:
    """R-T03."""
    listed = re.search(r"\{([a-z,]+)\}", parser().format_usage())
    assert listed is not None
    commands = listed[1].split(",")
    table = "\n".join(line for line in README.splitlines() if line.startswith("| `membudget "))
    assert [] == [name for name in commands if name != "completion" and name not in table]


def test_every_make_target_in_the_documents_exists() -> None:
    """README, CONTRIBUTING and the makefile's help agree."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    documents = README + (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"^make ([a-z-]+)", documents, re.MULTILINE)) | set(
        re.findall(r"`make ([a-z-]+)`", documents)
    )
    assert sorted(named - targets) == []


def test_the_table_of_conditions_is_the_enum() -> None:
    """R-P10: every reason of every condition has its line, and no line is invented."""
    table = (ROOT / "docs" / "conditions.md").read_text()
    lines = re.findall(r"^\| (Accepted|Programmed|Ready|Resized) \| \w+ \| (\w+) \|", table, re.MULTILINE)
    expected = {(condition.value, reason.value) for condition, reasons in REASONS.items() for reason in reasons}
    assert set(lines) == expected


def test_every_link_to_a_file_leads_somewhere() -> None:
    """Relative links of all Markdown files of the root and docs."""
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [(file, link) for file in files for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", file.read_text())]
    assert [str(link) for file, link in links if not (file.parent / link).exists()] == []
