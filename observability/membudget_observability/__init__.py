"""Rules, dashboards and the page of metrics, as code: `make observability` writes what the chart and the docs ship.

Covers: recording rules (`recording`), alerts (`alerting`), their file (`rule_file`), dashboards (`dashboards` and one
module for each), the page of metrics (`metrics_page`), pictures of the dashboards' queries (`pictures`). Does not name
or export metrics: `membudget_contract.metric_names` does, and the collectors.
"""
