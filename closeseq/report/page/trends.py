"""What the page draws over time: sockets by state for the server ports that matter most, and closes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from closeseq.connections.conversation import ENDS, End
from closeseq.report.page import charts
from closeseq.report.page.occupancy import MOMENTS, OTHERS
from closeseq.report.page.overview import BINS
from closeseq.units import count, span
from closeseq.verdict.model import ENDED, VerdictCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from closeseq.report.page.overview import Overview

MOST_PORTS = 4  # whose sockets are drawn
BEGUN = "problems"  # the class of the bars that show when problems began


def trends(overview: Overview) -> dict[str, Any]:
    """Return charts and captions for page.html."""
    ports = _ports(overview)
    return {
        "states_caption": _states_caption(overview),
        "ports": [_port(overview, port) for port in ports],
        "more_ports": _more_ports(overview, ports),
        "closes_caption": _closes_caption(overview),
        "closes": _closes(overview),
    }


def _ports(overview: Overview) -> list[int]:
    """Return the server ports whose sockets are drawn: most problems first, then most connections."""
    order = sorted(
        overview.ports, key=lambda port: (-overview.troubled_ports[port], -overview.ports[port], port)
    )
    return order[:MOST_PORTS]


def _port(overview: Overview, port: int) -> dict[str, Any]:
    occupancy, troubled = overview.occupancy, overview.troubled_ports[port]
    name, of_it = f"Server port {port}", f" of :{port}"
    if port == OTHERS:
        name, of_it = "Other server ports", ""
    series = [occupancy.series(port, ENDS.index(end)) for end in (End.SERVER, End.CLIENT)]
    most = max(charts.peak(one) for one in series)  # both sides on one scale, to be compared
    remark = count(overview.ports[port], "connection")
    remark += f", {troubled:,} with a problem" if troubled else ""
    names = f"Server sockets{of_it}", "Their clients' sockets"
    return {
        "name": name,
        "troubled": troubled,
        "remark": remark,
        "sides": [
            {"name": text, "chart": charts.stacked(one, occupancy.span_ns, most)}
            for text, one in zip(names, series, strict=True)
        ],
    }


def _more_ports(overview: Overview, shown: Sequence[int]) -> str:
    rest = [port for port in overview.ports if port not in shown]
    if not rest:
        return ""
    named = count(len(rest) - (OTHERS in rest), "more server port")
    named += " and all further ones" if OTHERS in rest else ""
    number = sum(overview.ports[port] for port in rest)
    return f"Not drawn: {named}, with {count(number, 'connection')}."


def _states_caption(overview: Overview) -> str:
    every = span(overview.occupancy.span_ns // (MOMENTS - 1))
    return (
        f"How many sockets are in which state, counted every {every} from the first packet to the end of the "
        "capture. States are inferred from packets. What was open before the capture counts from its first "
        "packet on."
    )


def _closes_caption(overview: Overview) -> str:
    ended = sum(number for code, number in overview.verdicts.items() if code in ENDED)
    return (
        f"{ended:,} of {count(overview.number, 'connection')} ended during the capture; a bar is "
        f"{span(overview.occupancy.span_ns // BINS)}."
    )


def _closes(overview: Overview) -> list[dict[str, Any]]:
    """Return the bars: closes by verdict, and the beginnings of problems."""
    names = [code.value for code in VerdictCode if any(code in one for one in overview.closes)]
    charted = [_bars(overview, "Connections that ended, by verdict", overview.closes, names)]
    if any(overview.begun):
        begun = [{BEGUN: number} for number in overview.begun]
        charted.append(_bars(overview, "Problems, when they began", begun, [BEGUN]))
    return charted


def _bars(
    overview: Overview, name: str, counts: Sequence[Mapping[str, int]], names: Sequence[str]
) -> dict[str, Any]:
    scale = charts.ceiling(max(sum(one.values()) for one in counts))
    return {
        "name": name,
        "names": names,
        "bars": list(charts.columns(counts, names, scale)),
        "across": list(charts.times(overview.occupancy.span_ns)),
        "up": list(charts.levels(scale)),
    }
