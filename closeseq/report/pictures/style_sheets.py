"""The styles of the SVG pictures: CSS for light and dark, which holds within a picture only.

Colours are written out for each scheme, as programs other than browsers know no variables of CSS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.report.pictures.palette import DARK, LIGHT, PROBLEM
from closeseq.tcp.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from closeseq.report.pictures.palette import Paint


def _ladder_scheme(paints: Mapping[State, Paint], colors: Mapping[str, str]) -> Iterable[str]:
    """Yield the rules of one colour scheme."""
    c = colors
    yield f".paper{{fill:{c['paper']}}}"
    yield f"text{{fill:{c['ink']};stroke:none}}"
    yield f".label{{stroke:{c['paper']}}}"
    yield f".dim,.clock,.wait,.numbers,.traffic,.advice,.number{{fill:{c['dim']}}}"
    yield f".axis,.until{{stroke:{c['rule']}}}"
    yield f".head{{fill:{c['panel']};stroke:{c['rule']}}}"
    yield f".arrow .sent{{stroke:{c['ink']}}}.arrow .tip{{fill:{c['ink']}}}"
    yield f".rst .sent,.lost .sent,.cross{{stroke:{c['problem']}}}"
    yield f".rst .tip,.rst .label{{fill:{c['problem']}}}"
    yield f".badge{{stroke:none;fill:{c['notice']}}}.badge.problem{{fill:{c['problem']}}}"
    yield f".letter{{fill:{c['paper']}}}.code.problem{{fill:{c['problem']}}}"
    yield f".role.active,.role.both{{fill:{paints[State.FIN_WAIT_1].ink}}}"
    yield f".role.passive{{fill:{paints[State.CLOSE_WAIT].ink}}}"
    yield f".role.aborter,.role.aborted{{fill:{c['problem']}}}"
    for state, paint in paints.items():
        yield f".bar.{state}{{fill:{paint.fill};stroke:{paint.ink}}}.state.{state}{{fill:{paint.ink}}}"
    yield f".bar.stuck{{stroke:{c['problem']}}}.state.stuck{{fill:{c['problem']}}}"


def _scoped(rules: Iterable[str], root: str) -> str:
    """Return rules that hold within a picture only, so that a page's own classes are left alone."""
    found = []
    for rule in "".join(rules).split("}"):
        if rule:
            selectors, body = rule.split("{")
            scoped = ",".join(f".{root} {one}" for one in selectors.split(","))
            found.append(f"{scoped}{{{body}}}")
    return "\n".join(found)


_LADDER = (
    "text{font:12px system-ui,'Segoe UI','DejaVu Sans',sans-serif;white-space:pre}",
    ".verdict{font-size:17px;font-weight:600}",
    ".caption{font-size:12px;font-weight:600}",
    ".role{font-weight:400}",
    ".clock,.number,.address,.numbers,.state,.code{font-family:ui-monospace,'DejaVu Sans Mono',monospace}",
    ".clock,.number,.state,.numbers{font-size:11px}",
    ".address{font-size:12px}",
    ".address.small{font-size:10.5px}",
    ".numbers{font-size:10.5px;font-weight:400}",
    ".wait,.traffic{font-size:11.5px;font-style:italic}",
    ".label{font-weight:600;stroke-width:4px;stroke-linejoin:round;paint-order:stroke}",
    ".code{font-weight:600}",
    ".code .dim{font-weight:400}",
    ".letter{font-size:11px;font-weight:700}",
    ".bar{stroke-width:1px}",
    ".bar.assumed{stroke-dasharray:4 3;fill-opacity:.45}",
    ".bar.stuck{stroke-width:2.5px}",
    ".bar.UNKNOWN{stroke-dasharray:2 2}",
    ".state.stuck{font-weight:700}",
    ".sent{stroke-width:1.6px;fill:none}",
    ".sent.assumed{stroke-dasharray:5 4}",
    ".cross{stroke-width:2.4px;fill:none}",
    ".axis{stroke-width:1px}",
    ".until{stroke-width:1px;stroke-dasharray:2 4}",
    ".head{stroke-width:1px}",
)
_NAMES = ("paper", "ink", "dim", "rule", "panel", "problem", "notice")
_LIGHT = dict(
    zip(
        _NAMES,
        ("#ffffff", "#1c2127", "#5d6673", "#c5cad2", "#f5f6f8", PROBLEM["light"], "#6b7280"),
        strict=True,
    )
)
_DARK = dict(
    zip(
        _NAMES,
        ("#14171c", "#e4e8ee", "#9aa3b0", "#3d4450", "#1d2128", PROBLEM["dark"], "#9aa3b0"),
        strict=True,
    )
)


def _states_scheme(paints: Mapping[State, Paint], colors: Mapping[str, str]) -> Iterable[str]:
    """Yield the rules of a state diagram for one colour scheme."""
    c = colors
    inks = {
        "active": paints[State.FIN_WAIT_1].ink,
        "passive": paints[State.CLOSE_WAIT].ink,
        "reset": c["problem"],
        "other": c["ink"],
        "faint": c["rule"],
    }
    yield f".paper{{fill:{c['paper']}}}text{{fill:{c['ink']};stroke:none}}.label{{stroke:{c['paper']}}}"
    yield f".dim,.label,.state.faint{{fill:{c['dim']}}}"
    for kind, ink in inks.items():
        yield f".way.{kind}{{stroke:{ink}}}.tip.{kind}{{fill:{ink}}}"
        yield f".who.{kind}{{fill:{ink}}}" if kind != "faint" else ""
    for state, paint in paints.items():
        yield f".box.{state}{{fill:{paint.fill};stroke:{paint.ink}}}"
    yield f".box.faint{{fill:{c['paper']};stroke:{c['rule']}}}"


_STATES = (
    "text{font:12px system-ui,'Segoe UI','DejaVu Sans',sans-serif;white-space:pre}",
    ".title{font-size:15px;font-weight:600}",
    ".state{font-weight:600}",
    ".note{font-size:10.5px}",
    ".label{font-size:11px;stroke-width:4px;stroke-linejoin:round;paint-order:stroke}",
    ".who{font-weight:600}",
    ".dim{font-size:11.5px}",
    ".box{stroke-width:1.3px}",
    ".way{fill:none;stroke-width:1.4px}",
    ".way.passed{stroke-width:3px}",
    ".way.assumed{stroke-dasharray:7 5}",
    ".label.faint{opacity:.65}",
)


def _sheet(root: str, scheme: Callable[..., Iterable[str]], shape: Iterable[str]) -> str:
    """Return the whole sheet of one kind of picture."""
    return "\n".join(
        [
            f"svg.{root}{{max-width:100%;height:auto}}",
            _scoped(shape, root),
            _scoped(scheme(LIGHT, _LIGHT), root),
            f"@media screen and (prefers-color-scheme:dark){{\n{_scoped(scheme(DARK, _DARK), root)}\n}}",
        ]
    )


LADDER_STYLE = _sheet("closeseq-ladder", _ladder_scheme, _LADDER)
STATES_STYLE = _sheet("closeseq-states", _states_scheme, _STATES)
