"""Results for people: the table on the terminal, examples, results.json."""

from tagspeech.report.table import render_examples, render_table, report, results

__all__ = ["render_examples", "render_table", "report", "results"]
