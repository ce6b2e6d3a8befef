"""Logs that are cut, damaged or made to harm: what is intact is read, the rest named or refused, in bounded memory."""

import io
import os
import struct
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import lz4.frame
import pytest
import zstandard
from google.protobuf import descriptor_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.opcode import Opcode
from mcap.writer import CompressionType, Writer

from robot_rl.errors import LogError, RobotRLError
from robot_rl.runtime.log_messages import TOPICS, descriptors
from robot_rl.runtime.log_reader import Log, read_log
from robot_rl.runtime.log_writer import FORMAT, METADATA
from robot_rl.testing.flights import TINY, record

MAGIC = b"\x89MCAP0\r\n"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def good(folder: Path) -> bytes:
    record(folder / "good.mcap", folder, count=60)
    return (folder / "good.mcap").read_bytes()


def read_bytes(folder: Path, data: bytes, **options) -> Log:
    path = folder / "fuzzed.mcap"
    path.write_bytes(data)
    return read_log(path, **options)


def test_cut_anywhere_it_yields_what_came_before(good: bytes, folder: Path) -> None:
    whole = read_bytes(folder, good)
    previous, refused = 0, 0
    for end in [*range(0, len(good), 307), len(good) - 1]:
        try:
            log = read_bytes(folder, good[:end])
        except LogError:
            # Only before the metadata, of which nothing can be read.
            refused = end
            continue
        assert not log.complete
        ticks = [m["tick"] for m in log.messages["/mode"]]
        assert ticks == list(range(len(ticks)))
        assert len(ticks) >= previous
        previous = len(ticks)
    assert previous == len(whole.messages["/mode"]) == 60
    assert refused < _records(good, Opcode.CHUNK)[0][0]


@FUZZ
@given(st.data())
def test_flipped_bits_are_found_or_harmless(good: bytes, folder: Path, data: st.DataObject) -> None:
    """A chunk has a checksum, so that a message that is returned is a message that was written."""
    whole = {m["tick"]: m for m in read_bytes(folder, good).messages["/command"]}
    broken = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        log = read_bytes(folder, bytes(broken))
    except RobotRLError:
        return
    for message in log.messages["/command"]:
        assert message["position"].tobytes() == whole[message["tick"]]["position"].tobytes()


@FUZZ
@given(st.binary(max_size=2000), st.integers(0, 3))
def test_bytes_that_are_no_log_are_refused(good: bytes, folder: Path, noise: bytes, how: int) -> None:
    head = (b"", MAGIC, good[:3000], good[:500])[how]
    with suppress(RobotRLError):
        read_bytes(folder, head + noise)


@FUZZ
@given(st.data())
def test_overwritten_lengths_are_not_believed(good: bytes, folder: Path, data: st.DataObject) -> None:
    at = data.draw(st.integers(8, len(good) - 9))
    value = data.draw(st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1]))
    with suppress(RobotRLError):
        read_bytes(folder, good[:at] + struct.pack("<Q", value) + good[at + 8 :])


def test_a_damaged_chunk_costs_only_itself(good: bytes, folder: Path) -> None:
    chunks = _records(good, Opcode.CHUNK)
    assert len(chunks) > 3
    at, length = chunks[1]
    broken = bytearray(good)
    broken[at + length // 2] ^= 0xFF
    log = read_bytes(folder, bytes(broken))
    assert log.complete
    assert len(log.damage) == 1
    assert 0 < len(log.messages["/mode"]) < 60
    assert log.messages["/mode"][-1]["tick"] == 59
    assert log.dropped == 60 - len(log.messages["/mode"])


def _records(data: bytes, opcode: Opcode) -> list[tuple[int, int]]:
    """(start of content, length) of the records of a kind."""
    found, at = [], 8
    while at < len(data) - 8:
        length = struct.unpack_from("<Q", data, at + 1)[0]
        if data[at] == opcode:
            found.append((at + 9, length))
        at += 9 + length
    return found


# What a hand-made file holds.


def made(
    *,
    metadata: dict[str, str] | None = None,
    schemas: dict[str, tuple[str, str, bytes]] | None = None,
    tail: bytes = b"",
) -> bytes:
    """A file with the metadata of a log, the schemas (topic -> encoding, name, data), a message each, and `tail`."""
    file = io.BytesIO()
    writer = Writer(file, compression=CompressionType.NONE, chunk_size=1)
    writer.start()
    writer.add_metadata(METADATA, {"format": FORMAT, "contract": TINY.contract().to_json(), **(metadata or {})})
    for topic, (encoding, name, data) in (schemas or {}).items():
        channel = writer.register_channel(topic, encoding, writer.register_schema(name, encoding, data))
        writer.add_message(channel, 0, b"", 0)
    return file.getvalue() + tail


def chunk(compression: str, data: bytes, size: int) -> bytes:
    content = struct.pack("<QQQI", 0, 2**62, size, 0) + struct.pack("<I", len(compression)) + compression.encode()
    content += struct.pack("<Q", len(data)) + data
    return struct.pack("<BQ", Opcode.CHUNK, len(content)) + content


SCHEMA = {"/mode": ("protobuf", "robot_rl.mode", descriptors("/mode"))}
BOMB_BYTES = 2 * 1024**3


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    """2 GiB of zeros, packed."""
    zstd, lz4_ = zstandard.ZstdCompressor().compressobj(), lz4.frame.LZ4FrameCompressor()
    parts: dict[str, list[bytes]] = {"zstd": [], "lz4": [lz4_.begin()]}
    block = bytes(16 * 1024**2)
    for _ in range(BOMB_BYTES // len(block)):
        parts["zstd"].append(zstd.compress(block))
        parts["lz4"].append(lz4_.compress(block))
    parts["zstd"].append(zstd.flush())
    parts["lz4"].append(lz4_.flush())
    return {name: b"".join(p) for name, p in parts.items()}


LIMITED = textwrap.dedent("""
    import resource, sys
    from robot_rl.errors import RobotRLError
    from robot_rl.runtime.log_reader import read_log

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        log = read_log(sys.argv[1])
        print(*log.damage, sep="; ")
    except RobotRLError as error:
        print(error)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
""")


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("claimed", [100, 60 * 1024**2, BOMB_BYTES])
def test_bombs_do_not_go_off(bombs: dict[str, bytes], tmp_path: Path, compression: str, claimed: int) -> None:
    path = tmp_path / "bomb.mcap"
    path.write_bytes(made(schemas=SCHEMA, tail=chunk(compression, bombs[compression], claimed)))
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, path], capture_output=True, text=True, check=True, timeout=60
    )
    said, memory_kb = result.stdout.splitlines()
    assert "chunk of" in said or "takes more than" in said
    assert int(memory_kb) < 300 * 1024


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_chunk_longer_or_shorter_than_it_says_is_left_out(folder: Path, compression: str) -> None:
    compress = zstandard.compress if compression == "zstd" else lz4.frame.compress
    for said, word in ((999, "more than 999 bytes"), (1001, "has 1000 bytes, says 1001")):
        log = read_bytes(folder, made(schemas=SCHEMA, tail=chunk(compression, compress(bytes(1000)), said)))
        assert any(word in line for line in log.damage)


def test_a_frame_that_claims_the_moon_allocates_nothing(folder: Path) -> None:
    """A zstd frame whose header announces 2^60 bytes and a window to match."""
    frame = b"\x28\xb5\x2f\xfd" + bytes([0b11000000, 0b10110000]) + struct.pack("<Q", 2**60) + b"\x01\x00\x00"
    log = read_bytes(folder, made(schemas=SCHEMA, tail=chunk("zstd", frame, 1000)))
    assert len(log.damage) >= 1


def test_many_small_messages_in_little_space_are_refused(folder: Path) -> None:
    """Fifty thousand empty messages pack into 5 kB, and would take 50 MB as objects."""
    message = struct.pack("<BQHIQQ", Opcode.MESSAGE, 22, 1, 0, 0, 0)
    content = message * 50_000
    data = made(schemas=SCHEMA, tail=chunk("zstd", zstandard.compress(content), len(content)))
    assert len(data) < 10_000
    with pytest.raises(LogError, match="takes more than 16 MiB, unpacked; read a part of it"):
        read_bytes(folder, data, max_bytes=16 * 1024**2)


def _descriptor(*fields: tuple[str, int, int], more: bytes = b"") -> bytes:
    file = descriptor_pb2.FileDescriptorProto(name="a.proto", package="robot_rl", syntax="proto3")
    message = file.message_type.add(name="mode")
    for number, (name, kind, label) in enumerate(fields, start=1):
        message.field.add(name=name, number=number, type=kind, label=label)  # type: ignore[arg-type]
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString() + more


P = descriptor_pb2.FieldDescriptorProto
TOO_LONG = _descriptor(*[(f"f{k}", P.TYPE_DOUBLE, P.LABEL_OPTIONAL) for k in range(5000)])


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (("json", "robot_rl.mode", b"{}"), "messages of /mode are 'json', not 'protobuf'"),
        (("protobuf", "robot_rl.mode", b"\xff" * 50), "schema of /mode is none"),
        (("protobuf", "robot_rl.mode", b""), "schema of /mode is none"),
        (("protobuf", "no.such", descriptors("/mode")), "schema of /mode is none"),
        (("protobuf", "robot_rl.mode", TOO_LONG), "valid: at most 65536"),
        (
            ("protobuf", "robot_rl.mode", _descriptor(("mode", P.TYPE_DOUBLE, P.LABEL_OPTIONAL))),
            "field 'mode' is of another type than in this version",
        ),
        (
            ("protobuf", "robot_rl.mode", _descriptor(("t_s", P.TYPE_DOUBLE, P.LABEL_REPEATED))),
            "field 't_s' is of another type",
        ),
        (
            ("protobuf", "robot_rl.mode", _descriptor(("x", P.TYPE_BYTES, P.LABEL_OPTIONAL))),
            "field 'x' is neither number nor text",
        ),
    ],
)
def test_schemas_that_are_not_ours_are_refused(folder: Path, schema: tuple[str, str, bytes], message: str) -> None:
    with pytest.raises(LogError, match=message):
        read_bytes(folder, made(schemas={"/mode": schema}))


def test_a_log_of_fewer_and_of_more_fields_is_read(folder: Path) -> None:
    """Logs of other versions: what is missing is empty, what is new is there as well."""
    fields = _descriptor(("mode", P.TYPE_STRING, P.LABEL_OPTIONAL), ("novelty", P.TYPE_DOUBLE, P.LABEL_REPEATED))
    log = read_bytes(folder, made(schemas={"/mode": ("protobuf", "robot_rl.mode", fields)}))
    (message,) = log.messages["/mode"]
    assert set(message) == {"tick", "t_s", "novelty", *TOPICS["/mode"]}
    assert message["margin"] != message["margin"]
    assert message["cause"] == ""


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "1"}, "has log format '1'; this code reads '2'"),
        ({"contract": "{"}, "contract is not JSON"),
        ({"contract": "[]"}, "schema version None"),
        ({"contract": '{"schema_version": 1, "joints": 5}'}, "cannot be read"),
        ({"contract": "[" * 100_000}, "cannot be read"),
        ({"contract_digest": "0" * 64}, "its contract was altered"),
        ({"contract": "cos\nsystem\n(S'echo harm'\ntR."}, "contract is not JSON"),
    ],
)
def test_metadata_that_is_not_ours_is_refused(folder: Path, metadata: dict[str, str], message: str) -> None:
    with pytest.raises(RobotRLError, match=message):
        read_bytes(folder, made(metadata=metadata))


@pytest.mark.parametrize("content", [b"", b"hello", b"x" * 1000, MAGIC, MAGIC * 2])
def test_a_file_that_is_no_log(folder: Path, content: bytes) -> None:
    with pytest.raises(LogError, match="is no log of robot-rl"):
        read_bytes(folder, content)


def test_columns_of_unequal_messages_are_refused(good: bytes, folder: Path) -> None:
    log = read_bytes(folder, good)
    assert log.column("/state", "joint_pos").shape == (60, 16)
    log.messages["/state"][3]["joint_pos"] = log.messages["/state"][3]["joint_pos"][:5]
    with pytest.raises(LogError, match=r"joint_pos of /state has messages of \[5, 16\] numbers"):
        log.column("/state", "joint_pos")
