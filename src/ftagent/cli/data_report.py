"""What `ftagent data check` shows in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ftagent.report.text import clean, plural, shorten

if TYPE_CHECKING:
    from ftagent.toolkit.data.check import Report
    from ftagent.toolkit.data.lengths import Summary

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BAR = 40
_LANGUAGES = 6


def show(report: Report, faults: int, console: Console | None = None) -> None:
    """Numbers, a histogram of lengths, languages, and the first `faults` faults."""
    console = console or Console(highlight=False, soft_wrap=False)
    lost = f", {report.unreadable} more cannot be read" if report.unreadable else ""
    head = f"  {plural(report.rows, 'row')} of {report.format}{lost}"
    console.print(Text.assemble((clean(report.name), "bold"), head))
    if report.turns is not None:
        console.print()
        console.print(_numbers(report))
    if report.histogram:
        console.print()
        console.print(_histogram(report))
    if report.languages:
        console.print()
        console.print(_languages(report))
    console.print()
    _faults(report, faults, console)


def _numbers(report: Report) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    for name in ("least", "median", "90 %", "most", "total"):
        table.add_column(name, justify="right")
    _row(table, "turns", report.turns)
    _row(table, report.unit, report.lengths)
    _row(table, "of them learnt", report.learnt)
    return table


def _row(table: Table, name: str, summary: Summary | None) -> None:
    if summary is not None:
        values = (summary.least, summary.median, summary.p90, summary.most, summary.total)
        table.add_row(name, *(f"{value:,}" for value in values))


def _histogram(report: Report) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(report.unit, justify="right", no_wrap=True)
    table.add_column("")
    table.add_column("rows", justify="right")
    most = max(entry.count for entry in report.histogram)
    for entry in report.histogram:
        over = report.limit is not None and entry.end > report.limit
        name = f"{entry.start:,}" if entry.end == entry.start else f"{entry.start:,} – {entry.end:,}"
        table.add_row(name, Text(bar(entry.count, most), style="red" if over else "cyan"), f"{entry.count:,}")
    return table


def bar(count: int, most: int, width: int = _BAR) -> str:
    """A bar in eighths of a column; whatever is not nothing can be seen."""
    eighths = max(round(count / most * width * 8), 1) if count else 0
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def _languages(report: Report) -> Text:
    shares = [
        f"{'unknown' if code == 'und' else code} {100 * count / report.languages_of:.1f} %"
        for code, count in report.languages.items()
    ]
    more = f", {len(shares) - _LANGUAGES} more" if len(shares) > _LANGUAGES else ""
    looked = "" if report.languages_of == report.rows else f" on {report.languages_of} rows"
    return Text.assemble(
        ("languages  ", "dim"), ", ".join(shares[:_LANGUAGES]) + more, (f"  (py3langid{looked})", "dim")
    )


def _faults(report: Report, most: int, console: Console) -> None:
    from ftagent.toolkit.data.check import place_in

    if not report.faults:
        console.print(Text("no faults", style="green"))
        return
    rows = len({fault.row for fault in report.faults})
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items())
    head = f"{plural(len(report.faults), 'fault')} in {plural(rows, 'row')}"
    console.print(Text.assemble((head, "bold red"), f": {kinds}"))
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="yellow", no_wrap=True)
    table.add_column(overflow="fold")
    for fault in report.faults[:most]:
        place = clean(place_in(fault.place, report.name))
        table.add_row(Text(place), fault.kind, Text(shorten(fault.text, 300)))
    if most:
        console.print(table)
    if len(report.faults) > most:
        console.print(Text(f"and {len(report.faults) - most} more: --faults N shows N, --json up to 1000", style="dim"))
