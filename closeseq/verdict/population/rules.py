"""What many connections show together: from counts of closes to findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import Address, End
from closeseq.connections.crowds import WIDTH, WIDTH_NS, idle_clusters, port_uses, reset_habits
from closeseq.packets.value import value
from closeseq.settings import SECOND
from closeseq.tcp.timeline import Certainty
from closeseq.units import count, listed, span
from closeseq.verdict.model import PopulationCode
from closeseq.verdict.population.defaults import IDLE_DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from closeseq.connections.crowds import IdleCluster, PortUse, ResetHabit
    from closeseq.connections.idling import Closes
    from closeseq.connections.strays import Stray
    from closeseq.settings import Settings

PRESSURE = 0.5  # of the ports
MOST_NAMED = 3  # connections


@value
class PopulationFinding:
    """What connections to one server, or of one client to it, show together."""

    code: PopulationCode
    certainty: Certainty
    server: Address  # its address and port
    client: str | None  # address; None: of all clients
    endpoint: End  # who does it
    value_ns: int  # the timeout; of ports, the time until they run out, or 0 if they do not
    members: int  # connections that show it
    of: int  # connections in which the same endpoint closed first
    summary: str  # one line: what they show
    advice: str  # what to do about it, one line


def populations(closes: Closes, settings: Settings, strays: Iterable[Stray] = ()) -> list[PopulationFinding]:
    """Return what the connections of a capture show together, warnings before facts.

    Args:
        closes: all connections.
        settings: how many ports clients have, and how long TIME_WAIT holds one.
        strays: what reached an endpoint from an address that it does not know.
    """
    found = [
        *forgotten(strays),
        *_port_pressure(closes, settings),
        *_idle_timeouts(closes),
        *map(_habit, reset_habits(closes)),
    ]
    return warnings_first(found)


def warnings_first(found: Iterable[PopulationFinding]) -> list[PopulationFinding]:
    """Return findings in the order of reports; those of one server that are alike in it stay as they are."""
    order = list(PopulationCode)
    return sorted(found, key=lambda one: (order.index(one.code), -one.members, one.server, one.client or ""))


def forgotten(strays: Iterable[Stray]) -> Iterator[PopulationFinding]:
    """Yield the addresses from which segments came that a NAT should have given another one."""
    groups: dict[tuple[str, Address, str], list[Stray]] = {}
    for one in strays:
        groups.setdefault((one.resetter.address, one.known, one.sender.address), []).append(one)
    for several in groups.values():
        yield _stray(several)


def _stray(several: list[Stray]) -> PopulationFinding:
    """Return that segments of some connections came from another address than their receiver knows."""
    one = several[0]
    end = End.CLIENT if one.by_client else End.SERVER
    server, client = (one.known, one.resetter) if one.by_client else (one.resetter, one.known)
    shown = listed([f"#{each.connection} belongs to #{each.continues}" for each in several[:MOST_NAMED]])
    more = "" if len(several) <= MOST_NAMED else f", and {len(several) - MOST_NAMED:,} more"
    return PopulationFinding(
        *(PopulationCode.FORGOTTEN_BY_NAT, Certainty.PROVED, server, client.address, end),
        *(0, len(several), len(several)),
        f"segments of the {end.peer} {one.known} reach the {end} {one.resetter.address} from "
        f"{one.sender} instead, which it does not know: it answers with RST ({shown}{more}). A NAT between "
        "them has forgotten the connection, or took the segment for invalid",
        "look at the NAT: is its table full (nf_conntrack_count, nf_conntrack_max), does it forget sooner "
        "than keepalives come, was it restarted? On Linux "
        "net.netfilter.nf_conntrack_tcp_be_liberal=1, or a rule that drops INVALID packets, keeps them "
        "from passing untranslated",
    )


def _habit(one: ResetHabit) -> PopulationFinding:
    """Return that an endpoint ends its connections with RST, after all data was acknowledged."""
    who = f"the server {one.server} ends" if one.end is End.SERVER else f"clients of {one.server} end"
    return PopulationFinding(
        *(PopulationCode.RESETS_BY_HABIT, Certainty.ASSUMED, one.server, None, one.end),
        *(0, one.members, one.of),
        f"{who} connections with RST by habit ({one.members:,} of {one.of:,}), after all data was "
        "acknowledged",
        "no change is needed for a health check; in a program of your own use shutdown() and close(): the "
        "peer's program may take the RST for an error",
    )


def _idle_timeouts(closes: Closes) -> Iterator[PopulationFinding]:
    """Yield after which idleness servers or their clients close, and pools that outlive the server's."""
    for one in idle_clusters(closes):
        yield _idle_timeout(one)
        if one.end is End.SERVER and one.late:
            yield _wrong_order(one)


def _idle_timeout(one: IdleCluster) -> PopulationFinding:
    by_server = one.end is End.SERVER
    who = f"the server {one.server} closes" if by_server else f"clients of {one.server} close"
    others = "clients give up idle connections sooner"
    if not by_server:
        others = f"the server {one.server} keeps idle connections longer"
    return PopulationFinding(
        *(PopulationCode.IDLE_TIMEOUT, Certainty.ASSUMED, one.server, None, one.end),
        *(one.timeout_ns, one.members, one.of),
        f"{who} after {span(one.timeout_ns)} of idleness ({one.members:,} of {one.of:,})"
        f"{_defaults(one.timeout_ns)}",
        f"no change is needed if {others}: client below proxy below server",
    )


def _defaults(timeout_ns: int) -> str:
    """Return, to be added to a sentence, the products whose default this is."""
    fits = [
        f"{one.product} ({one.setting})"
        for one in IDLE_DEFAULTS
        if abs(timeout_ns - one.seconds * SECOND) <= max(WIDTH * one.seconds * SECOND, WIDTH_NS)
    ]
    return f"; this is the default of {', '.join(fits)}" if fits else ""


def _wrong_order(one: IdleCluster) -> PopulationFinding:
    """Return that clients reuse connections that idled for nearly as long as the server keeps them."""
    timeout = span(one.timeout_ns)
    return PopulationFinding(
        *(PopulationCode.TIMEOUTS_IN_WRONG_ORDER, Certainty.ASSUMED, one.server, None, End.CLIENT),
        *(one.timeout_ns, one.late, one.of),
        f"clients of {one.server} send requests on connections that have idled for up to "
        f"{span(one.longest_ns)} ({count(one.late, 'connection')}), and the server closes after {timeout}: "
        "sooner or later a request meets the server's FIN, and is lost",
        f"let clients (and proxies) give up idle connections well before {timeout}, or let the server keep "
        "them longer: client below proxy below server",
    )


def _port_pressure(closes: Closes, settings: Settings) -> Iterator[PopulationFinding]:
    """Yield clients whose connections to one server hold many ports in TIME_WAIT."""
    time_wait_ns, ports = settings.timers.time_wait_ns, settings.ephemeral_ports
    for one in port_uses(closes, time_wait_ns, ports):
        rate = (one.number - 1) / (one.lasted_ns / SECOND) if one.lasted_ns >= SECOND else 0.0
        settles = max(one.held, int(rate * time_wait_ns / SECOND))
        if settles >= PRESSURE * ports.of(one.client):
            yield _pressed(one, rate, settles, ports.of(one.client))


def _pressed(one: PortUse, rate: float, settles: int, ports: int) -> PopulationFinding:
    """Return that the ports of a client run out, or nearly.

    Args:
        one: its connections to one server.
        rate: of their closes, a second; 0 if they lasted too short a time for one.
        settles: how many will be in TIME_WAIT at once at this rate.
        ports: how many the client has.
    """
    left_ns = 0
    if one.held >= ports:
        end = "they have run out: connect() fails with EADDRNOTAVAIL"
    elif settles >= ports:
        left_ns = int((ports - one.held) / rate * SECOND)
        end = f"at this rate they run out in {span(left_ns)}, then connect() fails with EADDRNOTAVAIL"
    else:
        end = f"at this rate it will hold {settles:,}"
    often = f"{rate:,.0f} connections a second" if rate else f"{one.number:,} connections within a second"
    each = "opens a connection for every request, it seems, and " if one.short else ""
    return PopulationFinding(
        *(PopulationCode.PORT_PRESSURE, Certainty.ASSUMED, one.server, one.client, End.CLIENT),
        *(left_ns, one.held, one.number),
        f"the client {one.client} {each}closes {often} to {one.server} first: it "
        f"holds {one.held:,} of {ports:,} ports in TIME_WAIT, and {end}",
        "let the client keep connections and use them again (a pool, HTTP keep-alive); until then "
        "net.ipv4.tcp_tw_reuse=1 or a wider net.ipv4.ip_local_port_range at the client",
    )
