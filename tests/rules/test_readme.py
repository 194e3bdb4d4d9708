from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path


def make_goals(text: str) -> list[str]:
    return re.findall(r"^\s*make (\w+)", text, flags=re.MULTILINE)


def test_the_readme_names_the_two_commands_and_ci_runs_the_tests(repository: Path) -> None:
    promised = make_goals((repository / "README.md").read_text(encoding="utf-8"))
    assert {"demo", "test"} <= set(promised)
    assert make_goals((repository / ".ci" / "run").read_text(encoding="utf-8")) == ["test"]


def test_every_goal_that_the_readme_names_exists(repository: Path) -> None:
    for goal in sorted(set(make_goals((repository / "README.md").read_text(encoding="utf-8")))):
        done = subprocess.run(["make", "-n", goal], cwd=repository, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_ci_runs_in_bash_and_stops_at_the_first_fault(repository: Path) -> None:
    script = repository / ".ci" / "run"
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")
    assert script.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


def test_every_requirement_is_pinned(repository: Path) -> None:
    import tomllib

    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    names = {normal(re.split(r"[\[<>=~! ]", requirement)[0]) for requirement in wanted} - {"stepwell"}
    lines = [line for line in (repository / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.+]+", line) for line in lines)
    assert names - {line.split("==")[0] for line in lines} == set()


def normal(name: str) -> str:
    """The one spelling of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_command_that_the_readme_shows_parses(repository: Path) -> None:
    """Verbs and options as the command has them; nothing is run."""
    from typer.core import TyperGroup
    from typer.main import get_command

    import stepwell

    text = (repository / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\s*(?:\.venv/bin/)?stepwell (.+?)(?:\s+#.*)?$", text, flags=re.MULTILINE)
    assert lines
    for line in lines:
        words = shlex.split(line)
        command = get_command(stepwell.app)
        while isinstance(command, TyperGroup):
            verb = words.pop(0)
            assert verb in command.commands, f"{line!r}: no verb {verb!r}, only {sorted(command.commands)}"
            command = command.commands[verb]
        command.make_context(command.name, words)  # raises on an option that the verb does not have
