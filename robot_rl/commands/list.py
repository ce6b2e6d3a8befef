"""`robot-rl list`: what is installed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points

from robot_rl.commands.main import Verb, load_verbs
from robot_rl.commands.result import Result, Row


@dataclass(frozen=True)
class ListArgs:
    """Show the tasks, robots, algorithms, interfaces and verbs that are installed."""


def run(args: ListArgs) -> Result:
    from robot_rl.robots import get_robot, robot_names

    rows = [*_learning(), *(Row(f"robot/{name}", f"{len(get_robot(name).joints)} joints") for name in robot_names())]
    rows += [Row(f"interface/{e.name}", e.value) for e in sorted(entry_points(group="robot_rl.drivers"))]
    for name, entry in load_verbs().items():
        rows.append(Row(f"verb/{name}", entry.value))
    return Result(ok=True, rows=tuple(rows))


def _learning() -> list[Row]:
    """Tasks and algorithms; a robot, where torch is not installed, has none."""
    try:
        from robot_rl.algorithms.algorithm import ALGORITHMS
        from robot_rl.env import load_families, load_tasks
        from robot_rl.training.recipes import RECIPES
    except ModuleNotFoundError:
        return []
    tasks = load_tasks()
    rows = [Row(f"task/{name}", tasks[name].summary) for name in sorted(tasks)]
    rows += [Row(f"task/{name}:{family.argument}", family.summary) for name, family in load_families().items()]
    rows += [Row(f"algorithm/{name}", entry.summary) for name, entry in ALGORITHMS.items()]
    return rows + [Row(f"recipe/{name}", recipe.summary) for name, recipe in RECIPES.items()]


VERB = Verb(arguments=ListArgs, run=run)
