"""Bundles made to harm, or damaged: each is refused by name, quickly, in little memory, and leaves nothing behind."""

import io
import json
import os
import shutil
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from robot_rl.bundle.graph_check import check_graph
from robot_rl.bundle.load import GOLDEN_BYTES, MANIFEST_BYTES, load_bundle
from robot_rl.bundle.manifest import CONTENT_FILES, FileEntry, _digest
from robot_rl.bundle.policy import OnnxPolicy
from robot_rl.errors import BundleError, ContractError
from robot_rl.robots import LEAP_HAND
from robot_rl.testing.bundles import TinyPolicy

TINY = TinyPolicy(LEAP_HAND, history_length=1)
CONTRACT = TINY.contract()
ONNX = TINY.onnx_bytes()
REFUSED = (BundleError, ContractError)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY.write(tmp_path_factory.mktemp("original") / "bundle")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def sign(folder: Path, edit: Callable[[dict[str, Any]], Any] = lambda data: None) -> None:
    """Make all digests right again, as who means harm does."""
    data = json.loads((folder / "manifest.json").read_text())
    for name in CONTENT_FILES:
        entry = FileEntry.of((folder / name).read_bytes())
        data["files"][name] = {"size": entry.size, "sha256": entry.sha256}
    edit(data)
    data["digest"] = _digest({k: v for k, v in data.items() if k != "digest"})
    (folder / "manifest.json").write_text(json.dumps(data))


def zipped(folder: Path, path: Path, extra: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("manifest.json", *CONTENT_FILES):
            archive.write(folder / name, name)
        for name, data in (extra or {}).items():
            archive.writestr(name, data)
    return path


# Folders


def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes((folder / "CARD.md").read_bytes())
    (folder / "CARD.md").unlink()
    (folder / "CARD.md").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"CARD\.md cannot be read: a symbolic link"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["manifest.json", "policy.onnx"])
def test_a_pipe_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(BundleError, match="no regular file"):
        load_bundle(folder)


def test_a_folder_where_there_should_be_a_file(folder: Path) -> None:
    (folder / "golden.npz").unlink()
    (folder / "golden.npz").mkdir()
    with pytest.raises(BundleError, match=r"golden\.npz"):
        load_bundle(folder)


# Manifests


def test_a_manifest_without_end_is_not_read_to_it(folder: Path) -> None:
    with (folder / "manifest.json").open("ab") as file:
        file.truncate(10**12)
    with pytest.raises(BundleError, match="not JSON"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "text",
    [
        "[" * (MANIFEST_BYTES - 1),
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '{"schema_version": 1, "obs_mean": [NaN]}',
        '{"schema_version": 1, "obs_mean": [1e999]}',
        '{"schema_version": 1' + "0" * 5000 + "}",
        '"\\ud800"',
        "\x00" * 100,
        "",
        "null",
    ],
    ids=["deep list", "deep object", "NaN", "infinite", "long number", "surrogate", "zeros", "empty", "null"],
)
def test_json_made_to_break_a_parser(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        load_bundle(folder)


@pytest.mark.parametrize("size", [-1, 2**40, 10**30])
def test_a_size_that_is_none_is_refused_before_anything_is_read(folder: Path, size: int) -> None:
    sign(folder, lambda d: d["files"]["policy.onnx"].update(size=size))
    with pytest.raises(BundleError, match=rf"policy\.onnx: the manifest says {size} bytes; valid: 0 to"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["contract"].update(joints=7),
        lambda d: d["contract"].update(joints=[[]]),
        lambda d: d["contract"].update(observation_terms=[1, 2]),
        lambda d: d["contract"].update(observation_terms={"a": 1}),
        lambda d: d["contract"].update(history_length="many"),
        lambda d: d["contract"].update(history_length=10**30),
        lambda d: d["contract"].update(control_period_s="soon"),
        lambda d: d["contract"].update(action=None),
        lambda d: d["contract"]["joints"][0].update(lower_rad=[]),
        lambda d: d["contract"]["inputs"][0].update(shape=[10**12]),
        lambda d: d["contract"]["inputs"][0].update(shape=[16, {}]),
        lambda d: d["contract"]["inputs"][0].update(name=None),
        lambda d: d["files"].update({"../policy.onnx": d["files"]["policy.onnx"]}),
        lambda d: d["files"].update({"policy.onnx": []}),
        lambda d: d.update(created_utc="\x1b[2J"),
        lambda d: d.update(obs_mean=["1"] * len(d["obs_mean"])),
        lambda d: d.update(obs_mean=[10**400] * len(d["obs_mean"])),
    ],
)
def test_values_of_the_wrong_kind(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    def edit_all(data: dict[str, Any]) -> None:
        edit(data)
        if isinstance(data["contract"], dict):
            import hashlib

            text = json.dumps(data["contract"], sort_keys=True, indent=1)
            data["contract_digest"] = hashlib.sha256(text.encode()).hexdigest()

    sign(folder, edit_all)
    with pytest.raises(REFUSED, match="bundle"):
        load_bundle(folder)


# Zips


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_an_entry_that_leads_out_of_the_bundle(folder: Path, tmp_path: Path, name: str) -> None:
    path = zipped(folder, tmp_path / "slip.zip", {name: b"import os"})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BundleError, match="leads out of the bundle"):
        load_bundle(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_in_a_zip(folder: Path, tmp_path: Path) -> None:
    path = zipped(folder, tmp_path / "link.zip")
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("weights")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BundleError, match="'weights' leads out"):
        load_bundle(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_twice(folder: Path, tmp_path: Path) -> None:
    path = zipped(folder, tmp_path / "twice.zip", {"policy.onnx": ONNX})
    with pytest.raises(BundleError, match="more than once"):
        load_bundle(path)


def test_a_file_that_unpacks_to_far_more_than_it_says(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "manifest.json", "manifest.json")
        for name in CONTENT_FILES:
            archive.writestr(name, (folder / name).read_bytes() if name != "CARD.md" else b"\0" * 50_000_000)
    started = time.process_time()
    with pytest.raises(BundleError, match=r"CARD\.md: more than"):
        load_bundle(path)
    assert time.process_time() - started < 1.0


def test_a_list_of_files_without_end(folder: Path, tmp_path: Path) -> None:
    path = zipped(folder, tmp_path / "many.zip", {f"{i:06d}" * 10: b"" for i in range(12_000)})
    with pytest.raises(BundleError, match="its list of files has"):
        load_bundle(path)


def test_a_zip_whose_list_is_kept_elsewhere(folder: Path, tmp_path: Path) -> None:
    path = zipped(folder, tmp_path / "z64.zip")
    data = path.read_bytes()
    at = data.rfind(b"PK\x05\x06")
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)
    path.write_bytes(data[:at] + locator + data[at:])
    with pytest.raises(BundleError, match=r"z64\.zip"):
        load_bundle(path)


# Golden rows


def npz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def array(shape: str, descr: str = "<f4") -> bytes:
    return npy(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}", b"\0" * 64)


@pytest.mark.parametrize(
    "member",
    [
        array("(1000000000000, 16)"),
        array("(-1, 16)"),
        array("(4, 16)", "|O"),
        array("(1, 16)", "<i4"),
        array("(1, 16)", "<f8"),
        array("(1, 16)", "<c8"),
        npy("__import__('os').system('touch evil')"),
        npy("{" * 5000),
        npy("(" * 3000 + ")" * 3000),
        b"\x93NUMPY\x09\x00",
        b"",
    ],
    ids=["absurd", "negative", "objects", "integers", "doubles", "complex", "code", "open", "deep", "version", "empty"],
)
def test_golden_rows_that_are_none(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "golden.npz").write_bytes(npz({f"in/{t.name}": member for t in CONTRACT.inputs}))
    sign(folder)
    with pytest.raises(BundleError, match=r"golden|malformed"):
        load_bundle(folder)
    assert not (tmp_path / "evil").exists()


def test_golden_rows_that_unpack_to_far_more(folder: Path) -> None:
    """A member's size is only what the list of files says: make it say little less than the whole memory."""
    data = bytearray(npz({f"in/{CONTRACT.inputs[0].name}": array("(1, 16)")}))
    struct.pack_into("<L", data, data.rfind(b"PK\x01\x02") + 24, GOLDEN_BYTES + 1)
    (folder / "golden.npz").write_bytes(bytes(data))
    sign(folder)
    with pytest.raises(BundleError, match="unpacked; the most is"):
        load_bundle(folder)


# Graphs


def edited(edit: Callable[[onnx.ModelProto], Any]) -> bytes:
    model = onnx.load_from_string(ONNX)
    edit(model)
    return model.SerializeToString()


def weight(model: onnx.ModelProto) -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if t.name == "weight")


def move_outside(model: onnx.ModelProto) -> None:
    tensor = weight(model)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def subgraph(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("If", ["condition"], ["out"], then_branch=body, else_branch=body))


def hidden_constant(model: onnx.ModelProto) -> None:
    """An external tensor that is no initializer but an attribute."""
    tensor = TensorProto(name="secret", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../secret"
    model.graph.node.append(helper.make_node("Constant", [], ["leak"], value=tensor))


def function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    model.functions.append(helper.make_function("", "Tanh", ["x"], ["y"], [node], [helper.make_opsetid("", 20)]))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (move_outside, "external data"),
        (hidden_constant, "external data"),
        (lambda m: setattr(m.graph.node[0], "domain", "evil.ops"), "domain 'evil.ops'; valid: standard ONNX"),
        (lambda m: m.opset_import.append(helper.make_opsetid("evil.ops", 1)), "imports domain 'evil.ops'"),
        (lambda m: setattr(m.graph.node[0], "op_type", "RunShell"), "cannot load it"),
        (subgraph, "'If' holds a graph"),
        (function, "functions of its own"),
        (lambda m: weight(m).dims.__setitem__(0, 2**40), "a tensor of shape"),
        (lambda m: weight(m).dims.__setitem__(0, -5), "a tensor of shape"),
        (lambda m: m.ClearField("graph"), "0 graphs"),
    ],
)
def test_a_graph_that_is_more_or_less_than_a_policy(edit: Callable[[onnx.ModelProto], Any], message: str) -> None:
    with pytest.raises(BundleError, match=rf"policy\.onnx.*{message}"):
        OnnxPolicy(edited(edit), CONTRACT)


def test_external_data_is_found_however_it_is_written() -> None:
    """A length may be written in more bytes than it needs: who searches for bytes, misses it."""
    model = edited(move_outside)
    disguised = model.replace(b"\x0a\x08location", b"\x0a\x88\x00location")
    # The lengths around it grow by the one byte that was added.
    tensor = weight(onnx.load_from_string(model)).SerializeToString()
    assert disguised != model
    assert b"\x0a\x08location" in tensor
    broken = disguised  # outer lengths are now short: a reader must not run past them either
    for data in (model, broken):
        with pytest.raises(BundleError, match=r"policy\.onnx"):
            check_graph(data)
    entry = b"\x0a\x88\x00location\x12\x06secret"
    field = b"\x6a" + bytes([len(entry)]) + entry
    tensor = b"\x08\x04\x10\x01\x42\x01w" + field + b"\x70\x01"
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    with pytest.raises(BundleError, match="external data"):
        check_graph(b"\x08\x09\x3a" + bytes([len(graph)]) + graph)


def blow_up(times: int) -> Callable[[onnx.ModelProto], None]:
    """A constant that doubles with each node."""

    def edit(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.ones(1024, np.float32), "grow0"))
        for i in range(times):
            model.graph.node.append(helper.make_node("Concat", [f"grow{i}", f"grow{i}"], [f"grow{i + 1}"], axis=0))
        model.graph.node.append(helper.make_node("ReduceSum", [f"grow{times}"], ["sum"], keepdims=0))
        last = model.graph.node[-1].output[0]
        target = next(n for n in model.graph.node if "joint_target" in n.output)
        target.output[0] = "before"
        model.graph.node.append(helper.make_node("Add", ["before", last], ["joint_target"]))
        copy = next(n for n in model.graph.node if n.input == ["joint_target"])
        model.graph.node.remove(copy)
        model.graph.node.append(copy)

    return edit


def test_a_graph_that_takes_all_memory_is_refused_and_the_process_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    from robot_rl.bundle import policy as module

    monkeypatch.setattr(module, "MEMORY_BYTES", 2**28)
    with pytest.raises(BundleError, match=r"policy\.onnx: cannot be evaluated"):
        OnnxPolicy(edited(blow_up(34)), CONTRACT)
    policy = OnnxPolicy(edited(blow_up(3)), CONTRACT)
    inputs = {t.name: np.zeros(t.shape, np.float32) for t in CONTRACT.inputs}
    assert np.isfinite(policy.run(inputs)["joint_target"]).all()


def test_a_graph_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from robot_rl.bundle import policy

    def slow(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.ones((700, 700), np.float32), "m0"))
        for i in range(3000):
            model.graph.node.append(helper.make_node("MatMul", ["m0", f"m{i}"], [f"m{i + 1}"]))
        model.graph.output.append(helper.make_tensor_value_info("m3000", TensorProto.FLOAT, [700, 700]))

    monkeypatch.setattr(policy, "TRIAL_S", 0.2)
    monkeypatch.setattr(policy, "_check_tensors", lambda *arguments: None)
    started = time.monotonic()
    with pytest.raises(BundleError, match="takes longer than"):
        OnnxPolicy(edited(slow), CONTRACT)
    assert time.monotonic() - started < 20


# Anything


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=4))
def test_a_graph_with_flipped_bits_runs_or_is_refused(places: list[tuple[float, int]]) -> None:
    """Digests cannot help where who flips the bits also signs."""
    data = bytearray(ONNX)
    for place, bits in places:
        data[int(place * (len(data) - 1))] ^= bits
    try:
        policy = OnnxPolicy(bytes(data), CONTRACT)
    except REFUSED:
        return
    policy.run({t.name: np.zeros(t.shape, np.float32) for t in CONTRACT.inputs})


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300))
def test_no_bytes_make_the_graph_check_fail_otherwise(data: bytes) -> None:
    with pytest.raises(BundleError):
        check_graph(data)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.floats(0.5, 1.0),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=6),
)
def test_a_damaged_zip_loads_or_is_refused(
    original: Path, tmp_path: Path, cut: float, places: list[tuple[float, int]]
) -> None:
    path = zipped(original, tmp_path / "damaged.zip")
    data = bytearray(path.read_bytes())
    for place, bits in places:
        data[int(place * (len(data) - 1))] ^= bits
    path.write_bytes(data[: int(cut * len(data))])
    try:
        load_bundle(path)
    except REFUSED as error:
        named = str(error)
    else:
        return
    assert "damaged.zip" in named


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_anywhere_in_a_signed_manifest_loads_or_is_refused(
    original: Path, tmp_path: Path, data: st.DataObject
) -> None:
    folder = tmp_path / "bundle"
    if not folder.exists():
        shutil.copytree(original, folder)
    manifest = json.loads((original / "manifest.json").read_text())
    where: Any = manifest
    while True:
        key = data.draw(st.sampled_from(sorted(where) if isinstance(where, dict) else list(range(len(where)))))
        inner = where[key]
        if not (isinstance(inner, (dict, list)) and inner and data.draw(st.booleans())):
            break
        where = inner
    where[key] = data.draw(JSON)
    try:
        manifest["digest"] = _digest({k: v for k, v in manifest.items() if k != "digest"})
    except ValueError:
        return  # a number that JSON has not
    (folder / "manifest.json").write_text(json.dumps(manifest))
    try:
        load_bundle(folder)
    except REFUSED as error:
        named = str(error)
    else:
        return
    assert str(folder) in named


def test_a_truncated_deflate_stream(folder: Path) -> None:
    packed = zlib.compress(b"\0" * 10_000)
    (folder / "golden.npz").write_bytes(packed[: len(packed) // 2])
    sign(folder)
    with pytest.raises(BundleError, match=r"golden\.npz: cannot be read"):
        load_bundle(folder)
