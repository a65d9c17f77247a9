"""`saformer COMMAND` is the door to every command."""

import re
import subprocess
import sys

import saformer
from saformer.cli import COMMANDS


def test_the_version(cli):
    """`saformer --version` is that of the package."""
    assert cli("main", "--version") == (0, f"saformer {saformer.__version__}\n", "")


def test_help_names_every_command(cli):
    """`saformer` alone, and with --help, says what each command is for."""
    code, out, err = cli("main")
    assert (code, out, err) == cli("main", "--help") and code == 0
    assert re.findall(r"`saformer (\w+)", out) == list(COMMANDS)


def test_an_unknown_command(cli):
    """A word that is no command is answered with the nearest one."""
    code, _out, err = cli("main", "tabel", "digits")
    assert code == 2 and err.startswith("error: there is no command 'tabel'. Did you mean 'table'?")


def test_a_command_is_its_alias(cli):
    """`saformer table` does what `saformer-table` does, and wrong words are answered alike."""
    for command in ("table", "plot", "data", "export", "train"):
        assert cli("main", command, "nonsense") == cli(COMMANDS[command].__name__, "nonsense")


def test_a_training_is_known_by_its_alias():
    """Further processes of a training start what sys.argv names, which must be a command alone."""
    code = (
        "import sys, saformer.cli as cli\n"
        "cli.COMMANDS['train'] = lambda: print(sys.argv)\n"
        "sys.argv = ['/bin/saformer', 'train', 'seed=1']\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "['/bin/saformer-train', 'seed=1']\n", done.stderr
