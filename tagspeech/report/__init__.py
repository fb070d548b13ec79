"""Results for people: the table on the terminal, examples, results.json."""

from tagspeech.report.examples import render_examples, write_examples
from tagspeech.report.table import render_table, report, results

__all__ = ["render_examples", "render_table", "report", "results", "write_examples"]
