"""Compiling C for this processor and for a microcontroller, which is emulated."""

import shutil
import subprocess
import sys
from pathlib import Path

CHIP = Path(__file__).parent / "c" / "chip"  # start-up code and linker script
WARNINGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
FLASH, RAM = (0x0, 256 * 1024), (0x20000000, 16 * 1024)  # address, bytes: a micro:bit's
CORTEX_M0 = ["-target", "thumb-freestanding-eabi", "-mcpu=cortex_m0", "-Os", "-g"]
CORTEX_M0 += ["-ffreestanding", "-Wl,-e,reset", "-T", str(CHIP / "chip.ld")]


def compile_c(sources, program, flags=(), compiler=None):
    """Compile C files to program, with all warnings as errors; return its path.

    flags: more of the compiler's arguments. compiler: a command as a list; without it
    gcc where there is one, else zig's. Raises ValueError with what the compiler said.
    """
    if compiler is None:
        compiler = ["gcc"] if shutil.which("gcc") else zig()
    command = [*compiler, *WARNINGS, *flags, *map(str, sources), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"it does not compile: {done.stderr.strip()}")
    return Path(program)


def zig():
    """Return the command of zig's C compiler. Needs ziglang."""
    return [sys.executable, "-m", "ziglang", "cc"]


class Microcontroller:
    """An emulated Cortex-M0 with 256 KB of flash and 16 KB of RAM, and nothing else.

    folder: what export_c wrote. run(codes) returns the codes of the scores; sizes has
    the program's bytes in "flash" and "ram", its stack aside. An access outside its
    memory is an error. Needs ziglang, unicorn and pyelftools.
    """

    def __init__(self, folder):
        from elftools.elf.elffile import ELFFile
        from unicorn import Uc, unicorn_const
        from unicorn.arm_const import UC_CPU_ARM_CORTEX_M0

        folder = Path(folder)
        sources = [folder / "mnistq_net.c", CHIP / "start.c"]
        flags = [*CORTEX_M0, f"-I{folder}"]
        program = compile_c(sources, folder / "mnistq_net.elf", flags, zig())
        kind = unicorn_const.UC_MODE_THUMB | unicorn_const.UC_MODE_MCLASS
        self.chip = Uc(unicorn_const.UC_ARCH_ARM, kind)
        self.chip.ctl_set_cpu_model(UC_CPU_ARM_CORTEX_M0)
        read, write = unicorn_const.UC_PROT_READ, unicorn_const.UC_PROT_WRITE
        self.chip.mem_map(*FLASH, read | unicorn_const.UC_PROT_EXEC)
        self.chip.mem_map(*RAM, read | write)
        with program.open("rb") as file:
            elf = ELFFile(file)
            for segment in elf.iter_segments("PT_LOAD"):
                self.chip.mem_write(segment["p_paddr"], segment.data())
            table = elf.get_section_by_name(".symtab")
            self.places = {s.name: s["st_value"] for s in table.iter_symbols()}
            kept = [s for s in elf.iter_sections() if s["sh_flags"] & 2]  # allocated
            in_ram = sum(s["sh_size"] for s in kept if s["sh_addr"] >= RAM[0])
            self.sizes = {"flash": sum(s["sh_size"] for s in kept) - in_ram}
            self.sizes["ram"] = in_ram
            self.outputs = table.get_symbol_by_name("output_codes")[0]["st_size"]

    def run(self, codes):
        """Return the scores' codes of one image's codes, both as bytes."""
        from unicorn import arm_const

        given, made = self.places["input_codes"], self.places["output_codes"]
        self.chip.mem_write(given, bytes(codes))
        self.chip.reg_write(arm_const.UC_ARM_REG_SP, sum(RAM))
        self.chip.emu_start(self.places["reset"] | 1, self.places["stop"] & ~1)
        return bytes(self.chip.mem_read(made, self.outputs))
