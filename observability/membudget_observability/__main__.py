"""Writes all that is generated: `make observability`.

Covers: the rules and dashboards that the chart ships and the page of metrics. Does not draw pictures: that needs a
Prometheus with data (`make dashboard-pictures`). Tests compare what is committed with what is rendered here.
"""

from __future__ import annotations

from membudget_observability import dashboard_files, metrics_page, rule_file


def main() -> None:
    """Write every file."""
    written = {rule_file.FILE: rule_file.rendered(), metrics_page.FILE: metrics_page.rendered()}
    for path, text in (written | dashboard_files.files()).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
