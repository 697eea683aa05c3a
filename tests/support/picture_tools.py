"""The programs that read what `timeline -f` writes, as far as they are installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGES = {"dot": "graphviz", "mscgen": "mscgen", "plantuml": "plantuml", "node": "nodejs"}
NODE = Path(sys.prefix) / "node"  # npm install --prefix .venv/node mermaid jsdom
PATIENCE = 120  # seconds; plantuml starts a Java machine

# What Mermaid itself makes of some diagrams: title, messages as [kind, from, to, text], participants.
MERMAID = """
import { createRequire } from 'module';
import { pathToFileURL } from 'url';
const need = createRequire(process.argv[1] + '/package.json');
const { JSDOM } = need('jsdom');
const { window } = new JSDOM('');
globalThis.window = window;
globalThis.document = window.document;
const mermaid = (await import(pathToFileURL(need.resolve('mermaid')).href)).default;
let input = '';
for await (const part of process.stdin) input += part;
const found = [];
for (const text of JSON.parse(input)) {
  await mermaid.parse(text);
  const { db } = await mermaid.mermaidAPI.getDiagramFromText(text);
  found.push({
    title: db.getDiagramTitle(),
    messages: db.getMessages().map(one => [one.type, one.from, one.to, one.message]),
    participants: [...db.getActors().values()].map(one => one.description),
  });
}
console.log(JSON.stringify(found));
"""
ENTITY = re.compile("\ufb02\u00b0\u00b0(\\d+)\u00b6\u00df")  # how Mermaid keeps `#59;` until it draws


def needs_tool(name: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test without this program."""
    reason = f"needs {name} (package {PACKAGES[name]}), not installed here"
    return pytest.mark.skipif(not shutil.which(name), reason=reason)


def needs_mermaid() -> pytest.MarkDecorator:
    """Return a mark that skips a test without node and the Mermaid package."""
    there = bool(shutil.which("node")) and (NODE / "node_modules" / "mermaid").is_dir()
    return pytest.mark.skipif(not there, reason=f"needs node, and mermaid and jsdom in {NODE}")


def read_by(command: list[str], text: str) -> str:
    """Return what a program makes of a text on its standard input; it must not complain."""
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=PATIENCE, check=False, encoding="utf-8"
    )
    assert (done.returncode, done.stderr) == (0, ""), (done.stdout[-2000:], done.stderr)
    return done.stdout


@cache
def _node() -> str:
    return shutil.which("node") or "node"


def read_by_mermaid(texts: list[str]) -> list[dict]:
    """Return what Mermaid reads in fenced blocks, with its entities as the characters that it draws."""
    bare = [re.fullmatch(r"```mermaid\n(.*)```\n", text, re.DOTALL)[1] for text in texts]
    command = [_node(), "--input-type=module", "-e", MERMAID, str(NODE)]
    read = json.loads(read_by(command, json.dumps(bare)))
    return json.loads(
        ENTITY.sub(lambda found: json.dumps(chr(int(found[1])))[1:-1], json.dumps(read, ensure_ascii=False))
    )
