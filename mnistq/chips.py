"""Compiling C for this processor and for a microcontroller, which is emulated."""

import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from bisect import bisect
from collections import Counter
from functools import cache
from pathlib import Path

CHIP = Path(__file__).parent / "c" / "chip"  # start-up code and linker script
WARNINGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
FLASH, RAM = 0x0, 0x20000000  # where a Cortex-M has them
NATIVE = ["-O3", "-march=native", "-shared", "-fPIC"]  # all that this processor has
CORTEX_M0 = [
    "-target",
    "thumb-freestanding-eabi",
    "-mcpu=cortex_m0",
    "-Os",
    "-g",
    "-fno-inline",
]
CORTEX_M0 += ["-ffreestanding", "-Wl,-e,reset"]


def compile_c(sources, program, flags=(), compiler=None):
    """Compile C files to program, with all warnings as errors; return its path.

    flags: more of the compiler's arguments. compiler: a command as a list; without it
    gcc where there is one, else zig's. Raises ValueError with what the compiler said,
    and where there is none. Used in notebook 10.
    """
    if compiler is None:
        compiler = ["gcc"] if shutil.which("gcc") else zig()
    command = [*compiler, *WARNINGS, *flags, *map(str, sources), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"it does not compile: {done.stderr.strip()}")
    return Path(program)


def zig():
    """Return the command of zig's C compiler; ValueError where ziglang is missing."""
    if importlib.util.find_spec("ziglang") is None:
        raise ValueError(
            "there is no C compiler here: pip install ziglang, restart the kernel, and "
            "run this again. Until then look at the stored results."
        )
    return [sys.executable, "-m", "ziglang", "cc"]


def load_c(sources, flags=()):
    """Return the functions of C files, compiled for this processor, as a ctypes.CDLL.

    sources: paths; flags: more of the compiler's arguments. Raises as compile_c does.
    Used in notebook 10.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # A name of its own: a library that is loaded twice is loaded once.
        program = Path(folder) / f"{Path(folder).name}.so"
        return ctypes.CDLL(str(compile_c(sources, program, [*NATIVE, *flags])))


class ThisProcessor:
    """The C network compiled for the processor that runs Python.

    folder: what export_c wrote; flags: more of the compiler's arguments.
    run(codes) returns the codes of the scores. Used in notebook 10.
    """

    def __init__(self, folder, flags=()):
        self.library = load_c([Path(folder) / "mnistq_net.c"], flags)
        header = (Path(folder) / "mnistq_net.h").read_text("utf-8")
        outputs = re.search(r"MNISTQ_OUTPUTS (\d+)", header)[1]
        self.output_codes = ctypes.create_string_buffer(int(outputs))

    def run(self, codes):
        """Return the scores' codes of one image's codes, both as bytes."""
        self.library.mnistq_run(bytes(codes), self.output_codes)
        return self.output_codes.raw


class Microcontroller:
    """An emulated Cortex-M0 with so many bytes of flash and RAM, and nothing else.

    folder: what export_c wrote; flash, ram: without them those of a BBC micro:bit V1.
    run(codes) returns the codes of the scores; sizes has the program's bytes in "flash"
    and "ram", its stack aside. An access outside its memory is an error. Raises
    ValueError for a program that does not fit. Needs ziglang, unicorn and pyelftools.
    Used in notebook 10.
    """

    def __init__(self, folder, flash=256 * 1024, ram=16 * 1024):
        from elftools.elf.elffile import ELFFile
        from unicorn import Uc, unicorn_const
        from unicorn.arm_const import UC_CPU_ARM_CORTEX_M0

        folder = Path(folder)
        sources = [folder / "mnistq_net.c", CHIP / "start.c"]
        script = (CHIP / "chip.ld").read_text("utf-8")
        for word, count in (("FLASH_BYTES", flash), ("RAM_BYTES", ram)):
            script = script.replace(word, str(count))
        (folder / "chip.ld").write_text(script, "utf-8")
        flags = [*CORTEX_M0, f"-I{folder}", "-T", str(folder / "chip.ld")]
        program = compile_c(sources, folder / "mnistq_net.elf", flags, zig())
        kind = unicorn_const.UC_MODE_THUMB | unicorn_const.UC_MODE_MCLASS
        self.chip = Uc(unicorn_const.UC_ARCH_ARM, kind)
        self.chip.ctl_set_cpu_model(UC_CPU_ARM_CORTEX_M0)
        read, write = unicorn_const.UC_PROT_READ, unicorn_const.UC_PROT_WRITE
        self.chip.mem_map(FLASH, flash, read | unicorn_const.UC_PROT_EXEC)
        self.chip.mem_map(RAM, ram, read | write)
        self.end_of_ram = RAM + ram
        with program.open("rb") as file:
            elf = ELFFile(file)
            for segment in elf.iter_segments("PT_LOAD"):
                self.chip.mem_write(segment["p_paddr"], segment.data())
            table = elf.get_section_by_name(".symtab")
            symbols = [s for s in table.iter_symbols() if s.name]
            self.places = {s.name: s["st_value"] for s in symbols}
            functions = [s for s in symbols if s["st_info"]["type"] == "STT_FUNC"]
            self.functions = sorted((s["st_value"] & ~1, s.name) for s in functions)
            kept = [s for s in elf.iter_sections() if s["sh_flags"] & 2]  # allocated
            in_ram = sum(s["sh_size"] for s in kept if s["sh_addr"] >= RAM)
            self.sizes = {"flash": sum(s["sh_size"] for s in kept) - in_ram}
            self.sizes["ram"] = in_ram
            self.outputs = table.get_symbol_by_name("output_codes")[0]["st_size"]

    def run(self, codes):
        """Return the scores' codes of one image's codes, both as bytes."""
        from unicorn import arm_const

        given, made = self.places["input_codes"], self.places["output_codes"]
        self.chip.mem_write(given, bytes(codes))
        self.chip.reg_write(arm_const.UC_ARM_REG_SP, self.end_of_ram)
        self.chip.emu_start(self.places["reset"] | 1, self.places["stop"] & ~1)
        return bytes(self.chip.mem_read(made, self.outputs))

    def instructions(self, codes):
        """Return [{C function: instructions}], a dict for each step of the network.

        codes: of one image, as for run; the step's caller is counted with it. Each
        piece of code without a branch is counted when it is entered: some seconds.
        """
        from unicorn import UC_HOOK_BLOCK

        steps = []

        @cache
        def piece(address, size):
            """Return (the function, its instructions) of a piece of code."""
            _, name = self.functions[bisect(self.functions, (address + 1,)) - 1]
            halves = bytes(self.chip.mem_read(address, size))[1::2]
            long = sum(half >> 3 == 0b11110 for half in halves)  # of two halves
            return name, len(halves) - long

        def entered(chip, address, size, _):
            name, count = piece(address, size)
            if name == "mnistq_run":
                steps.append(Counter())
            if steps:
                steps[-1][name] += count

        hook = self.chip.hook_add(UC_HOOK_BLOCK, entered)
        self.chip.ctl_flush_tb()  # what it has translated does not know the hook
        self.run(codes)
        self.chip.hook_del(hook)
        self.chip.ctl_flush_tb()
        return steps[:-1]  # after the last call it only returns
