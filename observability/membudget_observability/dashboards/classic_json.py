"""A dashboard in Grafana's classic JSON, by Grafana's own foundation SDK.

Covers: variables, rows, panels, units, colours. Does not cover what is on a dashboard. The data source is a variable,
so that one file suits every installation; a file of the same content has the same bytes.
"""

from __future__ import annotations

import warnings
from typing import Final

from membudget_observability.dashboards.panel import Dashboard, Panel, Query, Show, Variable

with warnings.catch_warnings():
    # It would rather make resources of Grafana 12; classic JSON is what ConfigMaps hold and older servers read.
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.common import (
        BigValueGraphMode,
        DataSourceRef,
        GraphDrawStyle,
        GraphThresholdsStyleMode,
        LegendDisplayMode,
        LegendPlacement,
        LineInterpolation,
        StackingMode,
        TooltipDisplayMode,
        VisibilityMode,
    )
    from grafana_foundation_sdk.models.dashboard import (
        DashboardLinkType,
        Threshold,
        ThresholdsMode,
        VariableOption,
        VariableRefresh,
        VariableSort,
    )

TAG: Final = "membudget"
SOURCE: Final = DataSourceRef("prometheus", "${datasource}")
_COLOURS: Final = ("green", "yellow", "orange", "red")
"""Of figures below the first threshold, and from each on; the last one is red."""
_ALL: Final = "$__all"
_FILL: Final = {Show.LINES: 8.0, Show.STEPS: 0.0, Show.STACK: 60.0}
"""Percent of the area under a line."""


def rendered(made: Dashboard) -> str:
    """The file's text."""
    return JSONEncoder(indent=2, sort_keys=True).encode(_built(made).build()) + "\n"


def _built(made: Dashboard) -> dashboard.Dashboard:
    built = (
        dashboard.Dashboard(made.title)
        .uid(f"{TAG}-{made.name}")
        .description(made.description)
        .tags([TAG])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .link(
            dashboard.DashboardLink("membudget")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(as_dropdown=True)
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for variable in made.variables:
        built = built.with_variable(_variable(variable))
    number = 0
    for row in made.rows:
        built = built.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            number += 1
            built = built.with_panel(_panel(panel, number))
    return built


def _variable(variable: Variable) -> dashboard.QueryVariable:
    made = (
        dashboard.QueryVariable(variable.name)
        .label(variable.name.capitalize())
        .datasource(SOURCE)
        .query(f"label_values({variable.of_metric}, {variable.name})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    if not variable.several:
        return made
    everything = VariableOption(selected=True, text="All", value=_ALL)
    # `.*` also takes series without the label, as a Prometheus outside of a cluster has them.
    return made.multi(multi=True).include_all(include_all=True).all_value(".*").current(everything)


def _panel(panel: Panel, number: int) -> timeseries.Panel | stat.Panel:
    made = _figure(panel) if panel.show is Show.FIGURE else _lines(panel)
    made = (
        made.id(number)
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit.value)
        .datasource(SOURCE)
        .span(panel.width)
        .height(panel.height)
        .thresholds(_thresholds(panel.warn_at))
    )
    for place, query in enumerate(panel.queries):
        made = made.with_target(_target(query, place, instant=panel.show is Show.FIGURE))
    return made


def _figure(_: Panel) -> stat.Panel:
    return (
        stat.Panel()
        .graph_mode(BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("unknown")
    )


def _lines(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .draw_style(GraphDrawStyle.LINE)
        .line_width(2)
        .fill_opacity(_FILL[panel.show])
        .show_points(VisibilityMode.NEVER)
        .min(0)
        .legend(
            common.VizLegendOptions()
            .show_legend(show_legend=True)
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if panel.warn_at:
        made = made.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    if panel.show is Show.STEPS:
        made = made.line_interpolation(LineInterpolation.STEP_AFTER)
    if panel.show is Show.STACK:
        made = made.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    return made


def _thresholds(warn_at: tuple[float, ...]) -> dashboard.ThresholdsConfig:
    colours = [_COLOURS[0], *_COLOURS[len(_COLOURS) - len(warn_at) :]] if warn_at else [_COLOURS[0]]
    starts: list[float | None] = [None, *warn_at]
    steps = [Threshold(start, colour) for start, colour in zip(starts, colours, strict=True)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _target(query: Query, place: int, *, instant: bool) -> prometheus.Dataquery:
    made = prometheus.Dataquery().ref_id(chr(ord("A") + place)).expr(query.expression).legend_format(query.legend)
    made = made.datasource(SOURCE)
    return made.instant() if instant else made.range()
