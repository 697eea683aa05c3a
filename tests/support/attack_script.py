"""scripts/attack as a module: the captures that it makes are of use to tests as well."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

from places import ROOT

_loader = SourceFileLoader("attack", str(ROOT / "scripts/attack"))
attack = module_from_spec(spec_from_loader("attack", _loader))
sys.modules["attack"] = attack  # its dataclasses look there for themselves
_loader.exec_module(attack)
