"""The program for a real board, from the first word of flash to its lights."""

import struct
import sys

import pytest

import mnistq_helpers as mq

sys.path.insert(0, str(mq.ROOT / "docs" / "microbit"))
import build as microbit

PINS = 0x50000000
ROWS, COLUMNS = (13, 14, 15), range(4, 13)
# Light (row, column) of the three by nine at each place of the five by five, as the
# micro:bit's own runtime has it.
PLACES = [
    [(0, 0), (1, 3), (0, 1), (1, 4), (0, 2)],
    [(2, 3), (2, 4), (2, 5), (2, 6), (2, 7)],
    [(1, 1), (0, 8), (1, 2), (2, 8), (1, 0)],
    [(0, 7), (0, 6), (0, 5), (0, 4), (0, 3)],
    [(2, 2), (1, 6), (2, 0), (1, 5), (2, 1)],
]


def hex_bytes(path):
    """Return {address: byte} of an Intel HEX file, its checksums verified."""
    found, base = {}, 0
    for line in path.read_text().split():
        record = bytes.fromhex(line[1:])
        assert line[0] == ":" and sum(record) % 256 == 0
        count, address, kind = struct.unpack(">BHB", record[:4])
        data = record[4:-1]
        assert len(data) == count
        if kind == 4:
            base = int.from_bytes(data, "big") << 16
        elif kind == 2:
            base = int.from_bytes(data, "big") << 4
        elif kind == 0:
            found |= {base + address + i: byte for i, byte in enumerate(data)}
    return found


def lights(program):
    """Return the 5 x 5 that shines, as five strings, once every row had its turn."""
    from unicorn import UC_HOOK_MEM_WRITE, Uc, unicorn_const
    from unicorn.arm_const import UC_ARM_REG_SP, UC_CPU_ARM_CORTEX_M0

    kind = unicorn_const.UC_MODE_THUMB | unicorn_const.UC_MODE_MCLASS
    chip = Uc(unicorn_const.UC_ARCH_ARM, kind)
    chip.ctl_set_cpu_model(UC_CPU_ARM_CORTEX_M0)
    read, write = unicorn_const.UC_PROT_READ, unicorn_const.UC_PROT_WRITE
    chip.mem_map(0, 256 * 1024, read | unicorn_const.UC_PROT_EXEC)
    chip.mem_map(0x20000000, 16 * 1024, read | write)
    chip.mem_write(0x20000000, b"\xa5" * 16 * 1024)  # RAM holds anything at first
    chip.mem_map(PINS, 0x1000, read | write)
    for address, byte in program.items():
        chip.mem_write(address, bytes([byte]))
    level, outputs, shining, turns = [0] * 32, [], set(), []

    def pins_written(chip, access, address, size, value, _):
        numbers = [n for n in range(32) if value >> n & 1]
        if address == PINS + 0x518:
            outputs.extend(numbers)
        for n in numbers if address in (PINS + 0x508, PINS + 0x50C) else []:
            level[n] = int(address == PINS + 0x508)
        live = [r for r, pin in enumerate(ROWS) if level[pin] and pin in outputs]
        if address == PINS + 0x508 and set(numbers) & set(ROWS):
            turns.append(live)
            shining.update((r, c) for r in live for c in range(9) if not level[4 + c])
        if len(turns) == 6:
            chip.emu_stop()

    chip.hook_add(UC_HOOK_MEM_WRITE, pins_written, begin=PINS, end=PINS + 0xFFF)
    stack, start = struct.unpack("<II", bytes(chip.mem_read(0, 8)))
    chip.reg_write(UC_ARM_REG_SP, stack)
    chip.emu_start(start, 0, count=200_000_000)
    assert set(outputs) == {*ROWS, *COLUMNS}
    assert turns == 2 * [[0], [1], [2]]
    return ["".join(" #"[p in shining] for p in row) for row in PLACES]


def pictures():
    text = (mq.ROOT / "docs" / "microbit" / "main.c").read_text()
    lines = text.split("PICTURES[10] = {")[1].split("};")[0]
    found = [part for part in lines.split('"') if len(part) == 25]
    return [[picture[i : i + 5] for i in range(0, 25, 5)] for picture in found]


def test_ten_pictures_differ():
    assert len({tuple(p) for p in pictures()}) == 10


@pytest.mark.parametrize("number", [0, 2])
def test_the_lights_show_the_digit(number, tmp_path):
    label = microbit.build(tmp_path, number)
    program = hex_bytes(tmp_path / "mnistq.hex")
    assert lights(program) == pictures()[label]
