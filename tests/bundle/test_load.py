import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from robot_rl.bundle.load import load_bundle
from robot_rl.bundle.manifest import CONTENT_FILES, FileEntry
from robot_rl.bundle.policy import OnnxPolicy
from robot_rl.errors import BundleError, ContractError
from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl.testing.bundles import TinyPolicy

TINY = TinyPolicy(LEAP_HAND)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY.write(tmp_path_factory.mktemp("original") / "bundle")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def rewrite(folder: Path, edit) -> None:
    """Change the manifest and make its own digest right again, as somebody who edits by hand would not."""
    from robot_rl.bundle.manifest import _digest

    data = json.loads((folder / "manifest.json").read_text())
    edit(data)
    data["digest"] = _digest({k: v for k, v in data.items() if k != "digest"})
    (folder / "manifest.json").write_text(json.dumps(data))


@pytest.mark.parametrize("robot", [LEAP_HAND, UNITREE_G1])
@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_runs_what_was_written(tmp_path: Path, robot, suffix: str) -> None:
    tiny = TinyPolicy(robot)
    bundle = load_bundle(tiny.write(tmp_path / f"bundle{suffix}"))
    assert bundle.contract == tiny.contract()
    assert bundle.card.startswith("# Tiny")
    rows = {name: value for name, value in bundle.golden.items() if name.startswith("in/")}
    expected = tiny.evaluate({name.removeprefix("in/"): value for name, value in rows.items()})
    for row in range(3):
        outputs = bundle.policy.run({name.removeprefix("in/"): value[row] for name, value in rows.items()})
        for name, value in outputs.items():
            np.testing.assert_allclose(value[0], expected[name][row], atol=1e-6)


def test_outputs_of_one_run_outlive_the_next(folder: Path) -> None:
    bundle = load_bundle(folder)
    inputs = {n.removeprefix("in/"): v for n, v in bundle.golden.items() if n.startswith("in/")}
    first = bundle.policy.run({n: v[0] for n, v in inputs.items()})
    kept = {n: v.copy() for n, v in first.items()}
    bundle.policy.run({n: v[1] for n, v in inputs.items()})
    for name in kept:
        np.testing.assert_array_equal(first[name], kept[name])


@pytest.mark.parametrize("name", ["manifest.json", *CONTENT_FILES])
def test_every_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["manifest.json", *CONTENT_FILES])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.97])
def test_one_altered_byte_is_found_and_its_file_named(folder: Path, name: str, place: float) -> None:
    data = bytearray((folder / name).read_bytes())
    at = int(place * (len(data) - 1))
    # White space in JSON means nothing: alter the next byte that does.
    while name == "manifest.json" and chr(data[at]).isspace():
        at += 1
    data[at] ^= 0x01
    (folder / name).write_bytes(data)
    with pytest.raises((BundleError, ContractError), match=name):
        load_bundle(folder)


@pytest.mark.parametrize("name", CONTENT_FILES)
def test_a_truncated_file_says_both_sizes(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(BundleError, match=f"{name}: {len(data) // 2} bytes, the manifest says {len(data)}"):
        load_bundle(folder)


def test_a_longer_file_is_not_read_to_its_end(folder: Path) -> None:
    size = (folder / "CARD.md").stat().st_size
    with (folder / "CARD.md").open("ab") as file:
        file.truncate(10_000_000_000)
    with pytest.raises(BundleError, match=rf"CARD\.md: more than {size} bytes"):
        load_bundle(folder)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_zip_is_called_so(original: Path, tmp_path: Path, share: float) -> None:
    path = TINY.write(tmp_path / "bundle.zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BundleError, match=r"bundle\.zip: neither a folder nor a complete zip"):
        load_bundle(path)


@pytest.mark.parametrize("name", ["manifest.json", *CONTENT_FILES])
def test_an_altered_byte_in_a_zip_names_the_file(tmp_path: Path, name: str) -> None:
    path = TINY.write(tmp_path / "bundle.zip")
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
    data = bytearray(path.read_bytes())
    data[info.header_offset + 30 + len(name) + info.compress_size // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BundleError, match=name):
        load_bundle(path)


def test_a_zip_without_a_file_names_it(tmp_path: Path) -> None:
    path = TINY.write(tmp_path / "bundle.zip")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "less.zip", "w") as target:
        for name in source.namelist():
            if name != "golden.npz":
                target.writestr(name, source.read(name))
    with pytest.raises(BundleError, match=r"golden\.npz is missing"):
        load_bundle(tmp_path / "less.zip")


def test_no_such_path(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere: no such file"):
        load_bundle(tmp_path / "nowhere")


def test_an_altered_contract_is_found_though_the_manifest_agrees(folder: Path) -> None:
    rewrite(folder, lambda d: d["contract"]["joints"][3].update(kp_nm_rad=2.9))
    with pytest.raises(BundleError, match="contract digest is"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(quaternion_order="xyzw"), "quaternion order 'xyzw' .*valid: wxyz"),
        (lambda c: c["inputs"][0].update(source="privileged"), "source 'privileged'; valid: state, command, memory"),
        (lambda c: c["inputs"][0].update(name="object_mass"), "'object_mass' is no RobotState field"),
        (lambda c: c["joints"][0].update(lower_rad=5.0), "if_mcp.*lower 5.0 must be below upper"),
        (lambda c: c.update(schema_version=7), "schema version 7"),
    ],
)
def test_a_contract_that_makes_no_sense(folder: Path, edit, message: str) -> None:
    rewrite(folder, lambda d: edit(d["contract"]))
    with pytest.raises((BundleError, ContractError), match=message):
        load_bundle(folder)


def edited_model(edit) -> bytes:
    model = onnx.load_from_string(TINY.onnx_bytes())
    edit(model)
    return model.SerializeToString()


def drop_input(model) -> None:
    """`last_target` is read by no node, so the graph stays valid without it."""
    model.graph.input.remove(next(i for i in model.graph.input if i.name == "last_target"))


def resize_input(model) -> None:
    value = next(i for i in model.graph.input if i.name == "last_target")
    value.type.tensor_type.shape.dim[1].dim_value = 15


def add_input(model) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("object_mass", onnx.TensorProto.FLOAT, ["n", 1]))


def double_input(model) -> None:
    next(i for i in model.graph.input if i.name == "last_target").type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop_input, r"policy\.onnx: inputs differ .*graph lacks \['last_target'\]"),
        (add_input, r"policy\.onnx: inputs differ .*contract lacks \['object_mass'\]"),
        (resize_input, r"policy\.onnx: input 'last_target' has shape .*15.*\(batch, 16\)"),
        (double_input, r"policy\.onnx: input 'last_target' has type tensor\(double\)"),
    ],
)
def test_a_graph_that_differs_from_its_contract(edit, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        OnnxPolicy(edited_model(edit), TINY.contract())


def test_a_graph_that_is_none() -> None:
    with pytest.raises(BundleError, match=r"policy\.onnx: no ONNX graph"):
        OnnxPolicy(b"not a graph", TINY.contract())


def test_a_graph_with_weights_in_another_file(tmp_path: Path) -> None:
    model = onnx.load_from_string(TINY.onnx_bytes())
    onnx.save_model(model, tmp_path / "policy.onnx", save_as_external_data=True, size_threshold=0)
    with pytest.raises(BundleError, match="external data"):
        OnnxPolicy((tmp_path / "policy.onnx").read_bytes(), TINY.contract())


def test_golden_rows_are_never_unpickled(folder: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    with (folder / "golden.npz").open("wb") as file:
        np.savez(file, **{"in/joint_pos": np.array([Trap()], dtype=object)})
    entry = dataclasses.asdict(FileEntry.of((folder / "golden.npz").read_bytes()))
    rewrite(folder, lambda d: d["files"].update({"golden.npz": entry}))
    with pytest.raises(BundleError, match=r"golden\.npz: cannot be read: .*allow_pickle=False"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda g: g.pop("in/velocity"), r"lacks \['in/velocity'\]"),
        (lambda g: g.update({"in/joint_pos": g["in/joint_pos"][:, :5]}), r"in/joint_pos is float32 \(5,\)"),
        (lambda g: g.update({"in/joint_pos": g["in/joint_pos"][:5]}), r"equally many rows.*\[5, 8\]"),
        (lambda g: g["out/obs"].__setitem__((2, 0), np.nan), "out/obs is not finite in row 2"),
    ],
)
def test_golden_rows_that_do_not_fit(tmp_path: Path, edit, message: str) -> None:
    golden = TINY.golden()
    edit(golden)
    path = TINY.write(tmp_path / "bundle", golden=golden)
    with pytest.raises(BundleError, match=message):
        load_bundle(path)


def test_inputs_of_the_wrong_size_are_refused_not_broadcast(folder: Path) -> None:
    bundle = load_bundle(folder)
    inputs = {t.name: np.zeros(t.shape, np.float32) for t in bundle.contract.inputs}
    with pytest.raises(ValueError, match="'joint_pos' has shape"):
        bundle.policy.run({**inputs, "joint_pos": np.zeros(1, np.float32)})
    with pytest.raises(KeyError, match="velocity"):
        bundle.policy.run({n: v for n, v in inputs.items() if n != "velocity"})
