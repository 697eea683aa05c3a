"""Watch one experiment of the lab live, and hold what was told against the capture that was saved.

Run as a program with the experiment's name; prints what does not fit, as JSON: a list of sentences.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import closeseq
from closeseq.lab.conduct import conduct
from closeseq.lab.namespace import run_apart
from closeseq.lab.registry import experiments
from closeseq.lab.trace import Trace
from closeseq.report.text import Style

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 20


def main(name, first_port, trace):
    experiment = experiments()[name]
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "saved.pcapng")
        command = [sys.executable, "-m", "closeseq", "live", "-i", experiment.device, "-p", "8080"]
        command += ["-w", str(saved), "-f", "jsonl", "--no-drop", *experiment.options.split()]
        with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=ROOT) as live:
            first = live.stderr.readline()
            conduct(experiment, None, Style(), lambda _: None, first_port=first_port, trace=trace)
            live.send_signal(signal.SIGINT)
            out, err = live.communicate(timeout=PATIENCE)
        problems = [] if "watching" in first and not err else [f"it said {first}{err}"]
        told = []
        for line in out.split("\n")[:-1]:
            try:
                told.append(json.loads(line))
            except ValueError as error:
                problems.append(
                    f"record {len(told) + 1} of status {live.returncode}: {error}: {line[-300:]!r}"
                )
        if not out.endswith("\n"):
            problems.append(f"its last line of {len(out)} characters is not whole: {out[-300:]!r}")
        problems += different(told, saved, experiment) + disagreeing(told) + unnamed(told, name)
    sys.stdout.write(json.dumps(problems))
    return 0


def different(told, saved, experiment):
    """Return the connections of which the saved capture says something else than was told last."""
    last = {one["id"]: one for one in told}
    analysis = closeseq.Analysis(told[0]["capture"] if told else "", experiment.settings)
    fill(analysis, saved)
    problems = [] if len(last) == len(analysis) else [f"{len(last)} told of {len(analysis)} connections"]
    for connection in analysis:
        one = last.get(connection.id)
        if one is None:
            continue
        live = one["live"]
        again = closeseq.Connection(
            connection.conversation, experiment.settings, since_epoch(live["as_of"]), capture=one["capture"]
        )
        record = closeseq.record(again)
        names = [name for name in record if record[name] != one[name]]
        problems += [
            f"#{connection.id} {live['event']}: {name}: {one[name]} told, {record[name]} saved"
            for name in names
        ]
    return problems


def fill(analysis, saved):
    from closeseq.capture import open_capture
    from closeseq.segments import decode
    from closeseq.segments.narrow import narrow

    with open_capture(str(saved)) as capture:
        for frames in capture.batches():
            analysis.feed(narrow(decode(frames), frozenset({8080}), frozenset()))


def since_epoch(text):
    whole, _, fraction = text.rstrip("Z").partition(".")
    return int(datetime.fromisoformat(whole + "+00:00").timestamp()) * 10**9 + int(fraction)


def disagreeing(told):
    """Return where the kernel says something else than the packets."""
    problems = []
    for one in told:
        live = one.get("live")
        for end, kernel in ((live or {}).get("kernel") or {}).items():
            if kernel is not None and not kernel["agrees"]:
                inferred, why = one[end]["state"], kernel["why"]
                told_so = f"{inferred} inferred, kernel {kernel['state']}: {why}"
                problems.append(f"kernel: #{one['id']} {live['event']} {end}: {told_so}")
    return problems


def unnamed(told, name):
    """Return whether a program that leaks sockets was not named."""
    servers = [one["live"]["kernel"]["server"] for one in told if one.get("live", {}).get("event") == "stuck"]
    leaking = {owner["name"] for server in servers for owner in server["owners"]}
    return (
        []
        if name != "leaky-server" or leaking == {"leaky-server"}
        else [f"the leak was put down to {leaking}"]
    )


if __name__ == "__main__":
    name, first_port = sys.argv[1], int(sys.argv[2])
    with Trace() as trace:
        sys.exit(run_apart(lambda: main(name, first_port, trace)))
