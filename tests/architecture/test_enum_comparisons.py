"""MuJoCo's enum trap: `mjX == m.jnt_type[i]` and `m.jnt_type[i] in (mjX, ...)` are silently False.

Members of mujoco's enums and the integers of its arrays compare as unequal, depending on which stands on the left. So
every comparison with a member has `int(...)` around both sides, and this file finds those that have not.
"""

from __future__ import annotations

import ast
import operator
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTAINERS = (ast.Tuple, ast.List, ast.Set)
LOOKUPS = {"index", "count", "remove"}
"""Methods that compare their argument with the elements of what they belong to."""


def sources() -> list[Path]:
    """Python files of this project, tracked or new; of an unpacked archive, those of its source folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [path for path in map(ROOT.joinpath, listed.stdout.splitlines()) if path.exists()]
    return [path for top in ("robot_rl", "sim", "hardware", "ros_ws", "tests") for path in (ROOT / top).rglob("*.py")]


def findings(source: str) -> list[int]:
    """Line numbers of comparisons, memberships, look-ups and keys with an enum member that is not inside int(...)."""
    tree = ast.parse(source)
    names = _member_names(tree)
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):  # whatever is looked up in it is compared with its keys
            sides = [key for key in node.keys if key]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOOKUPS:
            sides = [*node.args, node.func.value]
        elif isinstance(node, ast.Match):
            sides = [pattern.value for pattern in ast.walk(node) if isinstance(pattern, ast.MatchValue)]
        else:
            continue
        if any(_is_member(side, names) for side in sides):
            lines.append(node.lineno)
    return sorted(set(lines))


def _is_member(node: ast.AST, names: set[str]) -> bool:
    """An enum member, a name that stands for one, or a display or an expression that yields one as it is."""
    if isinstance(node, ast.Name):
        return node.id in names
    if isinstance(node, ast.Attribute):
        return _is_enum(node.value, names)
    if isinstance(node, ast.Call):  # mjtJoint(3) is a member; int(member) and the results of other calls are not
        return _is_enum(node.func, names) or (
            isinstance(node.func, ast.Name) and node.func.id in {"set", "frozenset", "tuple", "list"}
            and any(_is_member(arg, names) for arg in node.args)
        )  # fmt: skip
    if isinstance(node, CONTAINERS):
        return any(_is_member(element, names) for element in node.elts)
    if isinstance(node, ast.Starred):
        return _is_member(node.value, names)
    if isinstance(node, ast.IfExp):
        return _is_member(node.body, names) or _is_member(node.orelse, names)
    if isinstance(node, ast.NamedExpr):
        return _is_member(node.value, names)
    return False


def _is_enum(node: ast.AST, names: set[str]) -> bool:
    """A class of enum members: mujoco.mjtJoint, mjtJoint, or an alias of it."""
    if isinstance(node, ast.Attribute):
        return node.attr.startswith("mjt")
    return isinstance(node, ast.Name) and (node.id.startswith("mjt") or f"{node.id}." in names)


def _member_names(tree: ast.AST) -> set[str]:
    """Names bound to members (`FREE = mujoco.mjtJoint.mjJNT_FREE`), and, with a dot behind them, to enum classes."""
    names: set[str] = set()
    before = -1
    while len(names) != before:  # an alias may stand for another alias
        before = len(names)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                names |= {f"{a.asname or a.name}." for a in node.names if a.name.startswith("mjt")}
            elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    names |= _bound(target, node.value, names)
            elif isinstance(node, ast.For | ast.comprehension):
                names |= _bound(node.target, node.iter, names) if _is_member(node.iter, names) else set()
    return names


def _bound(target: ast.AST, value: ast.AST, names: set[str]) -> set[str]:
    """What assigning `value` to `target` makes a member or an enum class."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        pairs = zip(target.elts, value.elts, strict=True)
        return set().union(*(_bound(t, v, names) for t, v in pairs))
    if not isinstance(target, ast.Name):
        return set()
    if _is_member(value, names):
        return {target.id}
    return {f"{target.id}."} if _is_enum(value, names) else set()


@pytest.mark.parametrize(
    "source",
    [
        "m.jnt_type[i] == mujoco.mjtJoint.mjJNT_FREE",
        "mujoco.mjtJoint.mjJNT_FREE == m.jnt_type[i]",
        "int(m.jnt_type[i]) == mujoco.mjtJoint.mjJNT_FREE",
        "mj.mjtJoint.mjJNT_FREE != t",
        "t in (mujoco.mjtJoint.mjJNT_HINGE, int(mujoco.mjtJoint.mjJNT_SLIDE))",
        "t not in {mujoco.mjtJoint.mjJNT_HINGE}",
        "SIZES = {mujoco.mjtJoint.mjJNT_HINGE: 1}",
        "t in frozenset([mujoco.mjtJoint.mjJNT_HINGE])",
        "mujoco.mjtJoint.mjJNT_FREE in m.jnt_type",
        "from mujoco import mjtJoint\nt == mjtJoint.mjJNT_FREE",
        "from mujoco import mjtJoint as J\nt == J.mjJNT_FREE",
        "J = mujoco.mjtJoint\nt == J.mjJNT_FREE",
        "FREE = mujoco.mjtJoint.mjJNT_FREE\nt == FREE",
        "J = mujoco.mjtJoint\nFREE: object = J.mjJNT_FREE\nt == FREE",
        "FREE, n = mujoco.mjtJoint.mjJNT_FREE, 1\nt == FREE",
        "ROUND = (mujoco.mjtGeom.mjGEOM_SPHERE,)\nt in ROUND",
        "[t == k for k in (mujoco.mjtGeom.mjGEOM_SPHERE,)]",
        "mujoco.mjtJoint(t) == u",
        "kinds.index(mujoco.mjtJoint.mjJNT_FREE)",
        "x if t == (mujoco.mjtGeom.mjGEOM_BOX if a else b) else y",
        "match t:\n    case mujoco.mjtJoint.mjJNT_FREE:\n        pass",
    ],
)
def test_the_trap_is_found(source: str) -> None:
    assert findings(source)


@pytest.mark.parametrize(
    "source",
    [
        "int(m.jnt_type[i]) == int(mujoco.mjtJoint.mjJNT_FREE)",
        "FREE = int(mujoco.mjtJoint.mjJNT_FREE)\nint(t) == FREE",
        "t in (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))",
        "spec.add_actuator(trntype=mujoco.mjtTrn.mjTRN_JOINT)",
        "flags[int(mujoco.mjtRndFlag.mjRND_SHADOW)] = shadows",
        "integrators = {'euler': mujoco.mjtIntegrator.mjINT_EULER}\nname in integrators",
        "mujoco.mjtWarning(kind).name == 'mjWARN_BADQPOS'",
        "opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)",
        "names.index(name)",
    ],
)
def test_what_is_right_passes(source: str) -> None:
    assert findings(source) == []


def test_the_trap_is_real() -> None:
    """Where it is not any more, with the MuJoCo installed here, this file has lost its reason."""
    mujoco = pytest.importorskip("mujoco")
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><freejoint/><geom size='1'/></body></worldbody></mujoco>"
    )
    members = (mujoco.mjtJoint.mjJNT_FREE,)
    assert int(model.jnt_type[0]) == int(members[0])
    assert not operator.contains(members, model.jnt_type[0])


def test_no_source_compares_an_enum_member() -> None:
    found = sources()
    assert len(found) > 100
    wrong = [f"{p.relative_to(ROOT)}:{line}" for p in found for line in findings(p.read_text(encoding="utf-8"))]
    assert not wrong, f"write int(...) around both sides: {', '.join(wrong)}"
