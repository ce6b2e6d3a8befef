"""The emulated servos against their maker's own documents: packets of the protocol's e-manual, tables of the SDK."""

from importlib.resources import files

import pytest

from robot_rl_hardware import dynamixel_x as dxl
from robot_rl_hardware.dynamixel_emulator import crc16, packet, packets
from robot_rl_hardware.emulated_servo import ACCESS_ERROR, LENGTH_ERROR, RANGE_ERROR, TABLE, Servo

pytestmark = pytest.mark.realtime

# Examples of the e-manual's "DYNAMIXEL Protocol 2.0": (id, instruction and parameters, CRC low and high byte).
DOCUMENTED = {
    "ping": (0x01, "01", "19 4E"),
    "broadcast ping": (0xFE, "01", "31 42"),
    "answer to ping": (0x01, "55 00 06 04 26", "65 5D"),
    "answer of id 2": (0x02, "55 00 06 04 26", "6F 6D"),
    "read": (0x01, "02 84 00 04 00", "1D 15"),
    "answer to read": (0x01, "55 00 A6 00 00 00", "8C C0"),
    "write": (0x01, "03 74 00 00 02 00 00", "CA 89"),
    "answer to write": (0x01, "55 00", "A1 0C"),
    "reboot": (0x01, "08", "2F 4E"),
    "sync read": (0xFE, "82 84 00 04 00 01 02", "CE FA"),
    "sync write": (0xFE, "83 74 00 04 00 01 96 00 00 00 02 AA 00 00 00", "82 87"),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_packets_of_the_protocols_own_documentation(name: str) -> None:
    servo, body, crc = DOCUMENTED[name]
    raw = packet(servo, bytes.fromhex(body))
    assert raw[-2:] == bytes.fromhex(crc)
    assert raw[:4] == b"\xff\xff\xfd\x00"
    assert list(packets(bytearray(raw))) == [(servo, bytes.fromhex(body), True)]


def test_packets_survive_noise_splits_and_headers_inside() -> None:
    body = b"\x55\x00\xff\xff\xfd\xff\xff\xfd\xfd"
    raw = packet(7, body)
    assert raw.count(b"\xff\xff\xfd\xfd") == 2
    buffer = bytearray(b"\xff\xff\x12" + raw[:9])
    assert list(packets(buffer)) == []
    buffer += raw[9:] + b"\xff"
    assert list(packets(buffer)) == [(7, body, True)]
    damaged = bytearray(raw)
    damaged[-4] ^= 1
    assert [sound for _, _, sound in packets(damaged)] == [False]
    assert crc16(b"") == 0


def test_addresses_of_driver_and_emulator_are_the_makers() -> None:
    text = (files("dynamixel_easy_sdk") / "control_table" / "xl330_m288_fw52.model").read_text()
    rows = [line.split("\t") for line in text[text.index("Address\tSize") :].splitlines()[1:]]
    table = {name: (int(address), int(size)) for address, size, name in rows}
    for address, size in (table[name] for name in table if "Indirect" not in name):
        assert TABLE[address][0] == size
    driver = {
        "Return Delay Time": dxl.RETURN_DELAY,
        "Drive Mode": dxl.DRIVE_MODE,
        "Operating Mode": dxl.OPERATING_MODE,
        "Max Voltage Limit": dxl.MAX_VOLTAGE,
        "Min Voltage Limit": dxl.MIN_VOLTAGE,
        "Current Limit": dxl.CURRENT_LIMIT,
        "Torque Enable": dxl.TORQUE_ENABLE,
        "Status Return Level": dxl.STATUS_RETURN_LEVEL,
        "Hardware Error Status": dxl.HARDWARE_ERROR_STATUS,
        "Bus Watchdog": dxl.BUS_WATCHDOG,
        "Goal Current": dxl.GOAL_CURRENT,
        "Goal Position": dxl.GOAL_POSITION,
        "Present Position": dxl.PRESENT_POSITION,
        "Present Input Voltage": dxl.PRESENT_VOLTAGE,
    }
    assert {name: table[name] for name in driver} == driver
    # The blocks begin and end where the fields do that they are named after.
    blocks = {
        dxl.GAINS: ("Position D Gain", "Position P Gain"),
        dxl.FEED_FORWARD: ("Feedforward 2nd Gain", "Feedforward 1st Gain"),
        dxl.PROFILE: ("Profile Acceleration", "Profile Velocity"),
        dxl.PRESENT: ("Present Current", "Present Temperature"),
        dxl.CONDITION: ("Torque Enable", "Bus Watchdog"),
    }
    for (address, size), (first, last) in blocks.items():
        assert (address, size) == (table[first][0], sum(table[last]) - table[first][0])
    inside = {"current": "Current", "velocity": "Velocity", "position": "Position", "temperature": "Temperature"}
    assert dxl.PRESENT_BLOCK.itemsize == dxl.PRESENT[1]
    assert dxl.PRESENT_BLOCK.fields is not None
    for field, name in inside.items():
        assert dxl.PRESENT_BLOCK.fields[field][1] + dxl.PRESENT[0] == table[f"Present {name}"][0]


def test_a_servo_takes_whole_fields_only_and_locks_its_settings_under_torque() -> None:
    servo = Servo(3.0)
    assert servo.write(116, b"\1\2") == LENGTH_ERROR
    assert servo.write(132, bytes(4)) == ACCESS_ERROR
    assert servo.write(102, (1751).to_bytes(2, "little")) == RANGE_ERROR
    assert servo.write(11, b"\5") == 0
    assert servo.write(64, b"\1") == 0
    assert servo.get(116) == servo.get(132) == round(3.0 * 4096 / 6.283185307)
    assert servo.write(11, b"\3") == ACCESS_ERROR
    assert (servo.get(11), servo.get(64)) == (5, 1)


def test_the_bus_watchdog_stops_a_servo_and_locks_its_goals_until_it_is_cleared() -> None:
    """The e-manual's own example, in current-based position mode."""
    servo = Servo(3.0)
    for address, data in ((11, b"\5"), (84, b"\x58\2"), (64, b"\1"), (98, b"\5"), (116, (2500).to_bytes(4, "little"))):
        assert servo.write(address, data) == 0
    servo.advance(0.01, silence_s=0.099)
    assert servo.get(98) == 5
    moved = servo.position
    assert moved > 3.0
    servo.advance(0.01, silence_s=0.101)
    assert servo.get(98) == 0xFF
    servo.advance(0.5, silence_s=0.6)
    assert servo.position == pytest.approx(moved, abs=1e-3)
    assert servo.write(116, bytes(4)) == RANGE_ERROR
    assert servo.write(98, b"\0") == 0
    assert servo.write(116, bytes(4)) == 0
