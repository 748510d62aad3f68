"""The read side: what a sweep found, as one HTML file that opens anywhere, offline."""

from dashboards.build import build_report, write_report

__all__ = ["build_report", "write_report"]
