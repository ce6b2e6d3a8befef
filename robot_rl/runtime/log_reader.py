"""Reading logs, also those that are cut, damaged or made to harm.

What is intact is returned; what is not is left out and named in `Log.damage`. A file that is no log at all is refused.
Nothing that a file says of lengths is believed: no read goes beyond the file's end, no chunk is unpacked beyond
CHUNK_BYTES, all of them not beyond `max_bytes`. Messages are protobuf, decoded by the descriptors in the file, which
can describe numbers and texts and nothing else.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import lz4.frame
import numpy as np
import zstandard
from google.protobuf.descriptor import FieldDescriptor
from mcap.records import Channel, Chunk, Footer, McapRecord, Message, Metadata, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from numpy.typing import NDArray

from robot_rl.contract import Contract
from robot_rl.errors import LogError, RobotRLError
from robot_rl.runtime.log_messages import EVERY_TICK, TOPICS, message_class
from robot_rl.runtime.log_writer import FORMAT, METADATA

RECORD_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 64 * 1024 * 1024
"""Largest chunk, unpacked. Ours have a few hundred kB, those of tools that rewrite logs a few MB."""
MAX_BYTES = 2 * 1024**3
"""Most that is read at once, unpacked: about five minutes of a humanoid at 500 Hz."""
_MESSAGE_BYTES = 1024
"""What a message takes in memory besides its content; the smallest one is 31 bytes in a file."""
_SCHEMA_BYTES = 64 * 1024
_DTYPES = {
    FieldDescriptor.TYPE_DOUBLE: np.float64, FieldDescriptor.TYPE_FLOAT: np.float32,
    FieldDescriptor.TYPE_INT64: np.int64, FieldDescriptor.TYPE_BOOL: np.bool_,
}  # fmt: skip
_EMPTY: dict[int, Any] = {
    FieldDescriptor.TYPE_STRING: "", FieldDescriptor.TYPE_BOOL: False, FieldDescriptor.TYPE_INT64: 0,
}  # fmt: skip


@dataclass(frozen=True)
class Log:
    """What `read_log` found."""

    contract: Contract | None
    messages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Topic -> messages in the order written: fields by name, arrays as numpy arrays, and `tick`, the number of the
    tick. Every topic and field of log_messages.TOPICS is there: NaN, empty or "" where the log has none.
    Every tick is whole."""
    complete: bool = False
    """False: whoever wrote it was killed, or the file was cut."""
    metadata: dict[str, str] = field(default_factory=dict)
    damage: tuple[str, ...] = ()
    """What could not be read."""

    def column(self, topic: str, name: str) -> NDArray[Any]:
        """A field of all messages of a topic: (messages,) numbers or texts, or (messages, size), NaN where empty.

        Raises LogError if the arrays differ in length.
        """
        values = [message[name] for message in self.messages[topic]]
        if not values or not isinstance(values[0], np.ndarray):
            return np.array(values)
        sizes = {v.size for v in values} - {0}
        if len(sizes) > 1:
            raise LogError(f"{name} of {topic} has messages of {sorted(sizes)} numbers; valid: equally many")
        if len(sizes) == 1 and any(v.size == 0 for v in values):
            values = [v if v.size else np.full(next(iter(sizes)), np.nan) for v in values]
        return np.stack(values)

    @property
    def dropped(self) -> int:
        """Ticks missing between the first and the last."""
        ticks = [message["tick"] for message in self.messages["/mode"]]
        return 0 if not ticks else ticks[-1] - ticks[0] + 1 - len(ticks)


def read_log(
    path: Path | str, *, start_s: float | None = None, end_s: float | None = None, max_bytes: int = MAX_BYTES
) -> Log:
    """Read a log, or the part of it between two times in s since its first message.

    Raises LogError if it is no log of ours or holds more than `max_bytes`, OSError if it cannot be read.
    """
    reader = _Reader(Path(path), start_s, end_s, max_bytes)
    with Path(path).open("rb") as file:
        reader.read(file)
    if not reader.metadata:
        raise LogError(f"{path} is no log of robot-rl: it has no metadata {METADATA!r}{reader.why()}")
    if reader.metadata.get("format") != FORMAT:
        raise LogError(f"{path} has log format {reader.metadata.get('format')!r}; this code reads {FORMAT!r}")
    return Log(
        contract=_contract(path, reader.metadata),
        messages=_whole_ticks(reader.messages),
        complete=reader.complete,
        metadata=reader.metadata,
        damage=tuple(reader.damage),
    )


def _whole_ticks(messages: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Without ticks of which a part is missing: where a file was cut or damaged, there are such."""
    ticks = [{m["tick"] for m in messages[topic]} for topic in EVERY_TICK if messages[topic]]
    whole = set.intersection(*ticks) if ticks else set()
    return {topic: [m for m in kept if m["tick"] in whole] for topic, kept in messages.items()}


class _Reader:
    """Collects what is in one file, record by record: an index only exists in a file that was finished."""

    def __init__(self, path: Path, start_s: float | None, end_s: float | None, max_bytes: int) -> None:
        self.messages: dict[str, list[dict[str, Any]]] = {topic: [] for topic in TOPICS}
        self.metadata: dict[str, str] = {}
        self.damage: list[str] = []
        self.complete = False
        self._path = path
        self._start_s, self._end_s = start_s, end_s
        self._max_bytes = max_bytes
        self._bytes = 0
        self._first_ns: int | None = None
        self._schemas: dict[int, Schema] = {}
        self._decoders: dict[int, tuple[str, _Decoder]] = {}

    def read(self, file: IO[bytes]) -> None:
        try:
            stream = StreamReader(cast(IO[bytes], _WholeReads(file)), emit_chunks=True, record_size_limit=RECORD_BYTES)
            for record in stream.records:
                self._take(record)
        except LogError:
            raise
        except Exception as error:
            # It ends in the middle of a record, or a length is wrong: nothing after it can be found. The library raises
            # whatever comes to it on such bytes, from struct.error to UnicodeDecodeError.
            self.complete = False
            self.damage.append(f"ends at byte {file.tell()}: {type(error).__name__} {error}".rstrip(" :"))

    def why(self) -> str:
        return f" ({self.damage[-1]})" if self.damage else ""

    def _take(self, record: McapRecord) -> None:
        if isinstance(record, Metadata) and record.name == METADATA:
            self.metadata = record.metadata
        elif isinstance(record, Chunk):
            self._unpack(record)
        elif isinstance(record, Footer):
            self.complete = True
        elif isinstance(record, (Schema, Channel, Message)):
            self._take_content(record)

    def _charge(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._max_bytes:
            raise LogError(
                f"{self._path} takes more than {self._max_bytes / 2**20:.0f} MiB, unpacked; read a part of it, by "
                "times of start and end"
            )

    def _unpack(self, chunk: Chunk) -> None:
        if self._first_ns is not None and not self._wanted(chunk.message_start_time, chunk.message_end_time):
            return
        self._charge(chunk.uncompressed_size)
        try:
            chunk.data = _decompress(chunk)
            chunk.compression = ""
            records = breakup_chunk(chunk)
        except Exception as error:
            self.damage.append(
                f"chunk of {len(chunk.data)} bytes left out: {type(error).__name__} {error}".rstrip(" :")
            )
            return
        for record in records:
            self._take_content(record)

    def _take_content(self, record: McapRecord) -> None:
        if isinstance(record, Schema):
            self._schemas[record.id] = record
        elif isinstance(record, Channel) and record.id not in self._decoders and record.topic in TOPICS:
            self._decoders[record.id] = record.topic, self._decoder(record)
        elif isinstance(record, Message) and record.channel_id in self._decoders:
            self._first_ns = record.log_time if self._first_ns is None else self._first_ns
            if not self._wanted(record.log_time, record.log_time):
                return
            self._charge(_MESSAGE_BYTES + len(record.data))
            topic, decoder = self._decoders[record.channel_id]
            try:
                self.messages[topic].append({"tick": record.sequence, **decoder.decode(record.data)})
            except Exception as error:
                self.damage.append(f"message of {topic} left out: {type(error).__name__} {error}")

    def _wanted(self, from_ns: int, to_ns: int) -> bool:
        """Whether any of these log times is in the part to be read."""
        assert self._first_ns is not None
        after = self._start_s is None or (to_ns - self._first_ns) * 1e-9 >= self._start_s
        return after and (self._end_s is None or (from_ns - self._first_ns) * 1e-9 <= self._end_s)

    def _decoder(self, channel: Channel) -> _Decoder:
        schema = self._schemas.get(channel.schema_id)
        if schema is None or channel.message_encoding != "protobuf" or schema.encoding != "protobuf":
            raise LogError(
                f"{self._path}: messages of {channel.topic} are {channel.message_encoding!r}, not 'protobuf'"
            )
        return _Decoder(f"{self._path}: schema of {channel.topic}", schema, channel.topic)


class _Decoder:
    """Messages of one channel, by the schema in the file. Raises LogError for one that does not fit the topic."""

    def __init__(self, where: str, schema: Schema, topic: str) -> None:
        if len(schema.data) > _SCHEMA_BYTES:
            raise LogError(f"{where} has {len(schema.data)} bytes; valid: at most {_SCHEMA_BYTES}")
        try:
            self._class = message_class(schema.data, schema.name)
            found = list(self._class.DESCRIPTOR.fields)
        except Exception as error:
            raise LogError(f"{where} is none: {type(error).__name__} {error}") from error
        self._fields = [(f.name, f.type, bool(f.is_repeated)) for f in found]
        known = {"t_s": (FieldDescriptor.TYPE_DOUBLE, False), **TOPICS[topic]}
        for name, kind, many in self._fields:
            if kind not in _DTYPES and kind != FieldDescriptor.TYPE_STRING:
                raise LogError(f"{where}: field {name!r} is neither number nor text")
            if name in known and known[name] != (kind, many):
                raise LogError(f"{where}: field {name!r} is of another type than in this version")
        present = {name for name, _, _ in self._fields}
        self._absent = {
            name: _array((), kind) if many else _EMPTY.get(kind, np.nan)
            for name, (kind, many) in known.items()
            if name not in present
        }

    def decode(self, data: bytes) -> dict[str, Any]:
        message = self._class.FromString(data)
        values = {
            name: _array(getattr(message, name), kind) if many else getattr(message, name)
            for name, kind, many in self._fields
        }
        return {**self._absent, **values}


def _array(values: Any, kind: int) -> Any:
    return np.array(values, _DTYPES[kind]) if kind in _DTYPES else tuple(values)


class _WholeReads:
    """A file that ends where it holds less than what is asked for, whatever length a record claims."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def read(self, length: int) -> bytes:
        return self._file.read(length) if 0 <= length <= self._size - self._file.tell() else b""


def _decompress(chunk: Chunk) -> bytes:
    """The chunk's content. Raises ValueError if it is not exactly as long as it says, or its checksum is wrong."""
    size = chunk.uncompressed_size
    if size > CHUNK_BYTES:
        raise ValueError(f"claims {size} bytes, unpacked; valid: at most {CHUNK_BYTES}")
    if chunk.compression == "zstd":
        # Not `decompress`, which allocates what the frame claims.
        data = zstandard.ZstdDecompressor(max_window_size=CHUNK_BYTES).stream_reader(chunk.data).read(size + 1)
    elif chunk.compression == "lz4":
        data = lz4.frame.LZ4FrameDecompressor().decompress(chunk.data, max_length=size + 1)
    elif chunk.compression == "":
        data = chunk.data
    else:
        raise ValueError(f"compression {chunk.compression[:20]!r}; valid: zstd, lz4 and none")
    if len(data) != size:
        raise ValueError(f"has {'more than ' if len(data) > size else ''}{min(len(data), size)} bytes, says {size}")
    if chunk.uncompressed_crc not in (0, zlib.crc32(data)):
        raise ValueError("checksum is wrong")
    return data


def _contract(path: Path | str, metadata: dict[str, str]) -> Contract | None:
    text = metadata.get("contract")
    if text is None:
        return None
    try:
        contract = Contract.from_json(text)
    except RobotRLError:
        raise
    except Exception as error:
        raise LogError(f"{path}: its contract cannot be read: {type(error).__name__} {error}") from error
    if metadata.get("contract_digest", contract.digest()) != contract.digest():
        raise LogError(f"{path}: its contract was altered: its digest is not {metadata['contract_digest']}")
    return contract
