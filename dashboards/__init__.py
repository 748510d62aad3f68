"""Reports: a sweep's results as one HTML file that works offline."""

from dashboards.build import build_report, write_report

__all__ = ["build_report", "write_report"]
