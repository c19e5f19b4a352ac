"""docs/search.md lists exactly the parameters that there are. `python -m tests.search.test_docs` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

from bridge.search import PARAMETERS, found_by

PAGE = Path(__file__).parents[2] / "docs" / "search.md"
START, END = "<!-- parameters -->\n", "<!-- end of parameters -->"


def tables() -> str:
    parts = []
    for resource_type, known in PARAMETERS.items():
        lines = [
            f"### {resource_type}\n",
            "| Parameter | Type | How it is found | Remarks |",
            "|---|---|---|---|",
        ]
        for parameter in known.values():
            how = found_by(resource_type, parameter)
            remark = parameter.documentation.replace("|", "\\|")
            lines.append(f"| `{parameter.name}` | {parameter.type} | {how} | {remark} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def written(page: str) -> str:
    return re.sub(f"{START}.*{END}", lambda _: START + tables() + END, page, flags=re.DOTALL)


def test_the_page_lists_exactly_the_parameters() -> None:
    page = PAGE.read_text()
    assert START in page
    assert written(page) == page, "run python -m tests.search.test_docs"


def test_what_is_said_to_be_narrowed_has_a_recipe_or_says_that_it_is_tested() -> None:
    for resource_type, known in PARAMETERS.items():
        for parameter in known.values():
            if parameter.type == "composite" and parameter.icure:
                assert parameter.parts[0].type == "token", (resource_type, parameter.name)
            assert parameter.paths or parameter.read or parameter.name == "_id", parameter.name


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
