"""What the HTML pages share: templates that escape all that came from outside, one style, numbers as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manifests.console import counted

if TYPE_CHECKING:
    import jinja2

NBSP = "\u00a0"  # a number and its unit stay on one line


def environment(package: str = "manifests") -> jinja2.Environment:
    """Templates of the package's folder ``templates``, and the style. A page needs nothing but itself: style and drawings are inline."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name, "templates") for name in dict.fromkeys((package, "manifests"))]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    made.filters |= {"span": readable_span, "percent": readable_percent, "thousands": readable_number, "counted": counted}
    return made


def readable_span(seconds: float | None) -> str:
    """A length of time as people say it: ``41.2 s``, ``3.4 min``, ``1.25 h``, ``12,300 h``; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f}{NBSP}s"
    if seconds < 3600:
        return f"{seconds / 60:.1f}{NBSP}min"
    hours = seconds / 3600
    return f"{hours:.2f}{NBSP}h" if hours < 100 else f"{hours:,.0f}{NBSP}h"


def readable_percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f}{NBSP}%"


def readable_number(number: float | None) -> str:
    if number is None:
        return "–"
    return f"{number:,.0f}" if abs(number) >= 100 or number == int(number) else f"{number:.3g}"
