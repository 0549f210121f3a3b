"""Figures 10 and 11 as curves of what came out; needs matplotlib, the extra `plots`."""

import io

from musc_jax.report.reproduction.declared import Table
from musc_jax.report.reproduction.showing import Shown, notes_of


def draw_figure(shown: Shown) -> bytes:
    """A PNG with one plot for each metric (Figure 10), or for each part (Figure 11).

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # no global state, no window: pyplot would bring both

    panels = _panels(shown.table)
    figure = Figure(figsize=(4 * len(panels), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, rows, metric_of) in zip(axes, panels):
        for label, indices, metric in metric_of:
            points = [(rows[i], shown.outcomes[i].figures.get(metric)) for i in indices]
            drawn = [(value, figure_) for value, figure_ in points if figure_ is not None]
            ax.plot([value for value, _ in drawn], [figure_ for _, figure_ in drawn], marker="o", label=label)
        ax.set_title(title)
        if any(len(rows[i]) > 6 for _, indices, _ in metric_of for i in indices):
            ax.tick_params("x", rotation=45)
        ax.grid(alpha=0.3)
        if metric_of:
            ax.legend(fontsize="small")
    axes[0].set_ylabel("percent")
    figure.suptitle(shown.table.title)
    figure.supxlabel("\n".join(note[:160] for note in notes_of(shown)[:3]), fontsize=7)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()


_Curve = tuple[str, list[int], str]


def _panels(table: Table) -> list[tuple[str, list[str], list[_Curve]]]:
    """(title, what stands on the axis for each row, curves of (label, rows, metric))."""
    values = [row.cells[-1] for row in table.rows]
    by = [row.cells[:-1] for row in table.rows]
    groups = list(dict.fromkeys(by))
    members = {group: [i for i, front in enumerate(by) if front == group] for group in groups}
    if len(table.heads) == 2:
        return [(metric, values, [(group[0], members[group], metric) for group in groups]) for metric in table.metrics]
    panels = []
    for part in dict.fromkeys(group[0] for group in groups):
        own = [group for group in groups if group[0] == part]
        metrics = table.metrics[:1] if len(own) > 1 else table.metrics[1:]
        curves = [
            (f"{group[1]} {metric}" if len(metrics) > 1 else group[1], members[group], metric)
            for group in own
            for metric in metrics
        ]
        panels.append((part, values, curves))
    return panels
