"""Watch experiments of the lab live, and hold what was told against the captures that were saved.

Run as a program with the experiments' names; prints what does not fit, as JSON: for each of them a list of
sentences. They are carried out side by side, in processes forked from this one, which has imported
everything by then; so is the command that watches them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import traceback
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import closeseq
from closeseq.lab.child import conduct
from closeseq.lab.experiments import experiments
from closeseq.lab.kernel_answers import Trace
from closeseq.lab.network import die_with_parent, run_apart
from closeseq.report.text import Style
from forked import PIPE, Forked, fork_from_here, import_all
from places import ROOT

UNREAD_NS = 10**9  # packets so old may not have been read on a busy machine
PATIENCE = 60
AT_ONCE = 6  # they mostly sleep
CLIENTS = 100  # ports that each has for its clients


def side_by_side(names):
    """Return what did not fit when each of these experiments was watched."""
    import_all()
    waiting, running, found = list(enumerate(names)), {}, {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            number, name = waiting.pop(0)
            files = [os.fdopen(os.memfd_create(which), "w+") for which in ("problems", "trouble")]
            parent, pid = os.getpid(), os.fork()
            if not pid:
                os._exit(forked(name, 20_000 + CLIENTS * number, files, parent))
            running[pid] = name, files
        pid, status = os.wait()
        name, (problems, trouble) = running.pop(pid)
        with problems, trouble:
            problems.seek(0)
            trouble.seek(0)
            code = os.waitstatus_to_exitcode(status)
            found[name] = json.load(problems) if code == 0 else [f"status {code}: {trouble.read()}"]
    return found


def forked(name, first_port, files, parent):
    """Watch one experiment in this process, which was forked for it, and return its exit status."""
    problems, trouble = files
    os.dup2(trouble.fileno(), sys.stderr.fileno())
    die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        return 1
    try:
        with Trace() as trace:
            return run_apart(lambda: watch(name, first_port, trace, problems))
    except BaseException:  # noqa: BLE001 - a forked process must not do what its parent was about to
        traceback.print_exc()
        return 1


def watch(name, first_port, trace, write_to):
    """Watch one experiment, in namespaces of its own, and write what did not fit."""
    experiment = experiments()[name]
    fork_from_here()
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "saved.pcapng")
        command = ["live", "-i", experiment.device, "-p", "8080"]
        command += ["-w", str(saved), "-f", "jsonl", "--no-drop", *experiment.options.split()]
        with Forked(command, stdout=PIPE, stderr=PIPE, text=True, cwd=ROOT) as live:
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
        analysis = analysed(told, saved, experiment)
        problems += different(told, analysis, experiment) + disagreeing(told, analysis) + unnamed(told, name)
    json.dump(problems, write_to)
    write_to.flush()
    return 0


def analysed(told, saved, experiment):
    """Return the analysis of the saved capture."""
    from closeseq.capture import open_capture
    from closeseq.segments import decode
    from closeseq.segments.decode import narrow

    analysis = closeseq.Analysis(told[0]["capture"] if told else "", experiment.settings)
    with open_capture(str(saved)) as capture:
        for frames in capture.batches():
            analysis.feed(narrow(decode(frames), frozenset({8080}), frozenset()))
    return analysis


def different(told, analysis, experiment):
    """Return the connections of which the saved capture says something else than was told last."""
    last = {one["id"]: one for one in told}
    problems = [] if len(last) == len(analysis) else [f"{len(last)} told of {len(analysis)} connections"]
    for connection in analysis:
        one = last.get(connection.id)
        if one is None:
            continue
        # That the next connection of the pair began may not have been read yet when this was told.
        record, unaware = (
            saved(conversation, experiment, one)
            for conversation in (connection.conversation, replace(connection.conversation, successor=None))
        )
        if one.items() >= unaware.items():
            continue
        names = [name for name in record if record[name] != one[name]]
        problems += [
            f"#{connection.id} {one['live']['event']}: {name}: {one[name]} told, {record[name]} saved"
            for name in names
        ]
    return problems


def saved(conversation, experiment, told):
    """Return the record of a connection as it stood when it was told of."""
    as_of_ns = since_epoch(told["live"]["as_of"])
    return closeseq.record(
        closeseq.Connection(conversation, experiment.settings, as_of_ns, capture=told["capture"])
    )


def since_epoch(text):
    whole, _, fraction = text.rstrip("Z").partition(".")
    return int(datetime.fromisoformat(whole + "+00:00").timestamp()) * 10**9 + int(fraction)


def disagreeing(told, analysis):
    """Return where the kernel says something else than the packets, and is not just ahead of them.

    It is asked a moment after the packets were read, on a busy machine a long one, and what was captured in
    the moment before may not have been read yet. So its state may be one that the end came to only then, as
    the whole capture tells.
    """
    problems = []
    whole = {connection.id: connection for connection in analysis}
    for one in told:
        live = one.get("live")
        for end, kernel in ((live or {}).get("kernel") or {}).items():
            if kernel is not None and not kernel["agrees"]:
                later = states_after(whole.get(one["id"]), end, since_epoch(live["as_of"]) - UNREAD_NS)
                if kernel["state"] in later:
                    continue
                inferred, why = one[end]["state"], kernel["why"]
                told_so = f"{inferred} inferred, kernel {kernel['state']}: {why}"
                problems.append(f"kernel: #{one['id']} {live['event']} {end}: {told_so}")
    return problems


def states_after(connection, end, time_ns):
    """Return the states that an end of a connection came to after a moment."""
    moves = connection.timeline.transitions if connection else ()
    return {str(move.after) for move in moves if move.endpoint == end and move.time_ns > time_ns}


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
    json.dump(side_by_side(sys.argv[1:]), sys.stdout)
