"""Build the report page of one sweep or several, for `run` and `report`."""

from pathlib import Path

from orchestrator.cli import common


def build_report(sweeps: list[str], out: Path | None) -> Path:
    """Write the page, by default to the first sweep's folder, where `status` finds the page."""
    from dashboards.build import write_report

    reader = common.reader()
    views = [reader.view(sweep) for sweep in sweeps]
    path = reader.settings.report(sweeps[0]) if out is None else common.page(out)
    return write_report(views, path.resolve())
