"""Dashboards as code: what is on each (`fleet`, `policy`, `pod`, `engine`), in the terms of `panel`.

Covers: rows, panels, queries, units, descriptions. Does not cover how Grafana has it written (`classic_json`) nor
where the files lie (`dashboard_files`). A query names no job and no data source: both belong to who installs it.
"""
