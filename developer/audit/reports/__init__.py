"""An audit for people: lines for a terminal, a page for a browser."""

from triparty.developer.audit.reports.page import page
from triparty.developer.audit.reports.terminal import alarm, lines

__all__ = ["alarm", "lines", "page"]
