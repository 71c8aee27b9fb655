"""`llmctl cost`: what calls cost (`cost_report`), what may still be spent (`cost_budget`), prices (`cost_prices`)."""

from __future__ import annotations

import typer

from llmctl.cli import cost_budget, cost_prices, cost_report

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)
app.command("report", epilog=cost_report.EXAMPLES)(cost_report.report)
app.command("budget", epilog=cost_budget.EXAMPLES)(cost_budget.budget)
app.add_typer(cost_prices.app, name="prices")


@app.callback()
def cost() -> None:
    """Report what calls cost, what budgets have left, and the prices."""
