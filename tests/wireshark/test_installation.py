"""What is put into a user's Wireshark, and that exactly that is taken out again."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from closeseq.cli.main import run
from closeseq.wireshark.folders import Folders, find_folders
from closeseq.wireshark.installation import InstallError, install, plugin, program, uninstall
from closeseq.wireshark.lines import BUTTON_FILE, BUTTONS, COLOR_FILE, COLORS
from wireshark_tools import fields, needs_tool, numbers, tool

COMMAND = ["/opt/it's/python", "-m", "closeseq"]
THEIRS = b"# DO NOT EDIT\n@Bad TCP@tcp.analysis.flags@[1,2,3][4,5,6]\n@TCP@tcp@[7,8,9][0,0,0]\n"


@pytest.fixture
def folders(tmp_path):
    common = tmp_path / "usr"
    common.mkdir()
    (common / "colorfilters").write_bytes(THEIRS)
    home = tmp_path / "home"
    return Folders(home / "config", home / "lib" / "plugins", home / "lib" / "extcap", common)


def tree(folder):
    """Return all files below a folder: what is in them, and their permissions."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) for path in paths}


def home_of(folders):
    return folders.personal.parent


def test_everything_is_put_in_and_nothing_is_left_of_it(folders):
    told = list(install(folders, COMMAND))
    assert len(told) == 4
    there = tree(home_of(folders))
    assert set(there) == {
        folders.plugins / "closeseq.lua",
        folders.extcap / "closeseq",
        folders.personal / "colorfilters",
        folders.personal / "dfilter_buttons",
    }
    assert there[folders.extcap / "closeseq"] == (program(COMMAND), 0o755)
    assert there[folders.plugins / "closeseq.lua"][0] == plugin()
    assert len(list(uninstall(folders))) == 4
    assert tree(home_of(folders)) == {}
    assert list(uninstall(folders)) == []


def test_twice_is_once(folders):
    list(install(folders, COMMAND))
    once = tree(home_of(folders))
    assert all(line.endswith(": is there") for line in install(folders, COMMAND))
    assert tree(home_of(folders)) == once


@pytest.mark.parametrize("end", [b"\n", b"", b"\r\n"])
def test_a_users_own_lines_stay_as_they_are(folders, end):
    own = {
        "colorfilters": b"# mine\n!@closeseq: mine@tcp@[1,1,1][2,2,2]\n@x@ip@[1,1,1][2,2,2]" + end,
        "dfilter_buttons": b'# mine\n"FALSE","closeseq","tcp","my \xff own"\n"TRUE","b","ip",""' + end,
    }
    folders.personal.mkdir(parents=True)
    for name, data in own.items():
        (folders.personal / name).write_bytes(data)
        (folders.personal / name).chmod(0o600)
    before = tree(folders.personal)
    list(install(folders, COMMAND))
    for name, data in own.items():
        now = (folders.personal / name).read_bytes()
        assert now != data
        assert all(line in now.splitlines() for line in data.splitlines())
        assert stat.S_IMODE((folders.personal / name).stat().st_mode) == 0o600
    list(uninstall(folders))
    assert tree(folders.personal) == before


def test_lines_that_wireshark_wrote_again_are_known_and_those_that_the_user_added_stay(folders):
    """It drops comments, and the user has switched a rule of ours off and changed the colours of another."""
    list(install(folders, COMMAND))
    colors, buttons = folders.personal / "colorfilters", folders.personal / "dfilter_buttons"
    lines = [line for line in colors.read_bytes().splitlines(keepends=True) if not line.startswith(b"#")]
    lines[0] = b"!" + lines[0]
    lines[1] = lines[1].split(b"@[")[0] + b"@[0,0,0][1,1,1]\n"
    new = b"@mine@udp@[1,1,1][2,2,2]\n"
    colors.write_bytes(b"# written again\n" + b"".join([*lines[:3], new, *lines[3:]]))
    button = b'"TRUE","mine","udp",""\n'
    buttons.write_bytes(b"".join(buttons.read_bytes().splitlines(keepends=True)[1:]) + button)
    kept = colors.read_bytes(), buttons.read_bytes()
    list(install(folders, COMMAND))
    assert (colors.read_bytes(), buttons.read_bytes()) == kept  # the user's changes of ours are kept
    list(uninstall(folders))
    theirs = [line for line in THEIRS.splitlines(keepends=True) if not line.startswith(b"#")]
    assert colors.read_bytes() == b"# written again\n" + new + b"".join(theirs)
    assert buttons.read_bytes() == button


def test_a_file_that_was_made_and_changed_is_kept_without_our_lines(folders):
    list(install(folders, COMMAND))
    colors = folders.personal / "colorfilters"
    colors.write_bytes(colors.read_bytes() + b"@mine@udp@[1,1,1][2,2,2]\n")
    list(uninstall(folders))
    assert colors.read_bytes() == THEIRS + b"@mine@udp@[1,1,1][2,2,2]\n"


def test_a_plugin_that_was_changed_is_neither_overwritten_nor_removed_unless_by_force(folders):
    list(install(folders, COMMAND))
    lua = folders.plugins / "closeseq.lua"
    changed = lua.read_bytes() + b"-- mine\n"
    lua.write_bytes(changed)
    with pytest.raises(InstallError, match=r"closeseq\.lua is there, and not as closeseq wrote it; --force"):
        list(install(folders, COMMAND))
    assert [line for line in uninstall(folders) if "is left" in line] == [
        f"{lua}: was changed since, and is left; --force removes it"
    ]
    assert lua.read_bytes() == changed
    list(install(folders, COMMAND, force=True))
    assert lua.read_bytes() == plugin()
    lua.write_bytes(changed)
    list(uninstall(folders, force=True))
    assert tree(home_of(folders)) == {}


def test_an_older_plugin_of_ours_is_replaced(folders):
    list(install(folders, ["/old/python", "-m", "closeseq"]))
    list(install(folders, COMMAND))
    assert (folders.extcap / "closeseq").read_bytes() == program(COMMAND)


def test_profiles(folders):
    with pytest.raises(InstallError, match="there is no profile TCP"):
        list(install(folders, COMMAND, profile="TCP"))
    profile = folders.personal / "profiles" / "TCP"
    profile.mkdir(parents=True)
    list(install(folders, COMMAND, profile="TCP"))
    assert {path.name for path in profile.iterdir()} == {"colorfilters", "dfilter_buttons"}
    assert not (folders.personal / "colorfilters").exists()
    list(uninstall(folders))
    assert tree(home_of(folders)) == {}


def test_without_wiresharks_own_rules_there_are_no_colours(folders):
    """They would be the only ones."""
    bare = Folders(folders.personal, folders.plugins, folders.extcap, None, lua=False)
    told = list(install(bare, COMMAND))
    assert any("colorfilters: left out" in line for line in told)
    assert any("runs no Lua" in line for line in told)
    assert not (folders.personal / "colorfilters").exists()
    list(uninstall(bare))
    assert tree(home_of(folders)) == {}


def test_a_file_of_another_form_is_left_alone(folders):
    folders.personal.mkdir(parents=True)
    (folders.personal / "colorfilters").write_bytes(b'{"rules": []}\n')
    assert any("a form that is not known" in line for line in install(folders, COMMAND))
    assert (folders.personal / "colorfilters").read_bytes() == b'{"rules": []}\n'


def test_a_link_stays_a_link(folders, tmp_path):
    real = tmp_path / "dotfiles"
    real.write_bytes(THEIRS)
    folders.personal.mkdir(parents=True)
    (folders.personal / "colorfilters").symlink_to(real)
    list(install(folders, COMMAND))
    list(uninstall(folders))
    assert (folders.personal / "colorfilters").is_symlink()
    assert real.read_bytes() == THEIRS


def test_what_cannot_be_written_is_one_line(folders):
    home_of(folders).mkdir()
    folders.personal.write_text("a file where the folder should be")
    with pytest.raises(InstallError, match=r"colorfilters: cannot be (read|written): Not a directory"):
        list(install(folders, COMMAND))


# Where: by the manual, and as an installed Wireshark says.


@pytest.mark.parametrize(
    ("variables", "made", "personal"),
    [
        ({}, [], ".config/wireshark"),
        ({"XDG_CONFIG_HOME": "{home}/xdg"}, [], "xdg/wireshark"),
        ({"WIRESHARK_CONFIG_DIR": "{home}/mine"}, [], "mine"),
        ({}, [".wireshark"], ".wireshark"),
        ({}, [".wireshark", ".config/wireshark"], ".config/wireshark"),
    ],
)
def test_the_folders_are_those_of_the_manual(tmp_path, variables, made, personal):
    for folder in made:
        (tmp_path / folder).mkdir(parents=True)
    environment = {name: value.format(home=tmp_path) for name, value in variables.items()}
    alone = find_folders({"HOME": str(tmp_path), "PATH": str(tmp_path), **environment})
    library = tmp_path / ".local/lib/wireshark"
    assert alone == Folders(tmp_path / personal, library / "plugins", library / "extcap")
    if shutil.which("tshark"):
        asked = find_folders({"HOME": str(tmp_path), "PATH": os.environ["PATH"], **environment})
        assert (asked.personal, asked.plugins) == (alone.personal, alone.plugins)
        assert (asked.common / "colorfilters").is_file()
        assert asked.lua


def test_a_wireshark_that_cannot_be_asked_is_no_trouble(tmp_path):
    broken = tmp_path / "tshark"
    broken.write_text("#!/bin/sh\necho nonsense; exit 1\n")
    broken.chmod(0o755)
    assert find_folders({"HOME": str(tmp_path), "PATH": str(tmp_path)}).common is None


def test_the_extcap_folder_of_a_later_wireshark(tmp_path):
    later = tmp_path / "tshark"
    later.write_text(
        "#!/bin/sh\necho 'Personal configuration:\t/h/c'\necho 'Personal Extcap path:\t/h/lib/extcap'\n"
    )
    later.chmod(0o755)
    found = find_folders({"HOME": "/h", "PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert (found.personal, found.extcap) == (Path("/h/c"), Path("/h/lib/extcap"))
    assert not found.lua


# With Wireshark itself.


@needs_tool("tshark")
def test_an_installed_wireshark_has_fields_colours_and_the_interface(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    for name in ("WIRESHARK_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    annotated = tmp_path / "annotated.pcapng"
    assert run(["analyze", "captures/final-ack-lost.pcap", "-f", "pcapng", "-o", str(annotated)]) == 0
    assert run(["wireshark", "--install"]) == 0
    environment = {"HOME": str(home), "PYTHONPATH": os.getcwd()}  # noqa: PTH109 - as the interpreter has it
    assert numbers(annotated, 'closeseq.finding == "final-ack-lost"', env=environment) == [*range(10, 17)]
    colors = fields(annotated, "frame.number", "frame.coloring_rule.name", more=("--color",), env=environment)
    named = {int(number): name for number, name in colors}
    assert named[8] == "closeseq: active close"
    assert named[10] == "closeseq: problem"
    assert named[3] == "closeseq: state changes"
    assert named[5] not in {rule.name for rule in COLORS}
    assert "closeseq (TCP states as comments" in tool("tshark", "-D", env=environment)
    for button in BUTTONS:  # each filter is one that Wireshark understands
        assert numbers(annotated, button.filter, env=environment)
    assert run(["wireshark", "--uninstall"]) == 0
    assert tree(home) == {}
    assert "closeseq" not in tool("tshark", "-D", env=environment)


@needs_tool("tshark")
def test_wireshark_reads_the_buttons(tmp_path):
    """It complains of a file that it cannot read, and not about ours."""
    folder = tmp_path / "config"
    folder.mkdir()

    def said(data):
        (folder / "dfilter_buttons").write_bytes(data)
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "WIRESHARK_CONFIG_DIR": str(folder)}
        command = ["tshark", "-r", "captures/refused.pcap"]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        return "dfilter_buttons" in done.stderr

    lines = b"".join(BUTTON_FILE.lines.values())
    assert not said(BUTTON_FILE.added(b""))
    assert said(lines.replace(b"\\x22", b'"', 1))


def test_names_in_the_files_are_read_as_they_are_written():
    assert [COLOR_FILE.name_of(line) for line in COLOR_FILE.lines.values()] == list(COLOR_FILE.lines)
    assert [BUTTON_FILE.name_of(line) for line in BUTTON_FILE.lines.values()] == list(BUTTON_FILE.lines)
    assert COLOR_FILE.name_of(b"nonsense") is None
    assert BUTTON_FILE.name_of(b'"TRUE"') is None


# The command.


@pytest.mark.parametrize("arguments", [[], ["--uninstall", "--profile", "x"]])
def test_wrong_usage(arguments, capsys):
    assert run(["wireshark", *arguments]) == 2
    assert "--install" in capsys.readouterr().err


def test_the_command_prints_what_it_did(tmp_path, monkeypatch, capsys):
    for name in ("WIRESHARK_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["wireshark", "--install"]) == 0
    assert "extcap/closeseq: written" in capsys.readouterr().out
    assert os.access(tmp_path / ".local/lib/wireshark/extcap/closeseq", os.X_OK)
    assert run(["wireshark", "--uninstall"]) == 0
    assert run(["wireshark", "--uninstall"]) == 0
    assert capsys.readouterr().out.endswith("nothing of closeseq is there\n")
    (tmp_path / ".local/lib/wireshark/plugins/closeseq.lua").write_text("other")
    assert run(["wireshark", "--install"]) == 2
    assert "--force overwrites it" in capsys.readouterr().err
