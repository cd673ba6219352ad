"""The notebooks' rules: what must be so in each, whatever it teaches."""

import ast
import base64
import importlib.util
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import mnistq_helpers as mq

ROOT = Path(mq.__file__).parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPOSITORY = (ROOT / "tools" / "repository.txt").read_text().strip()
PICTURE = ROOT / "docs" / "accuracy.png"
pytestmark = pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [c for c in read(path).cells if c.cell_type == "code"]


def prose(path):
    return "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")


def test_it_was_run_in_order_from_a_fresh_kernel_without_an_error(path):
    cells = code_cells(path)
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            if output.get("name") == "stderr":  # only a runtime's notices
                assert all(x.startswith("INFO: ") for x in output.text.splitlines())


def test_it_is_small_and_clean(path):
    notebook = read(path)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert len(code_cells(path)) <= 40
    assert path.stat().st_size <= 500_000
    for number, cell in enumerate(notebook.cells):
        assert cell.id == f"cell-{number:02d}"
        assert set(cell.metadata) <= {"tags"}
        for output in cell.get("outputs", []):
            assert "image/svg+xml" not in output.get("data", {})
            assert "application/vnd.jupyter.widget-view+json" not in output.get(
                "data", {}
            )


def test_cells_are_short_and_do_not_end_in_a_semicolon(path):
    for cell in code_cells(path):
        assert not cell.source.rstrip().endswith(";")
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= 25, cell.source
    formulas_and_code = r"(?s)```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|!\["
    assert "!" not in re.sub(formulas_and_code, "", prose(path))


def test_it_has_the_skeleton(path):
    notebook = read(path)
    first = notebook.cells[0].source.splitlines()
    number = path.stem[:2]
    assert re.fullmatch(rf"# {number} · \S.*", first[0])
    address = f"{REPOSITORY}/blob/main/notebooks/{path.name}"
    badge = "https://colab.research.google.com/assets/colab-badge.svg"
    colab = f"https://colab.research.google.com/github/{address}"
    assert f"[![Open in Colab]({badge})]({colab})" in first
    for part in ("**You will**", "**You need**", "**Runs in** about"):
        assert part in notebook.cells[0].source
    headings = re.findall(r"(?m)^## (.*)$", prose(path))
    assert headings[-2:] == ["What we found", "Exercises"]
    assert len(headings) >= 5
    exercises = prose(path).split("## Exercises")[1]
    assert 2 <= len(re.findall(r"\*\*\d\. .*\(\d+ minutes\)", exercises)) <= 4
    assert exercises.count("<summary>Hint</summary>") == exercises.count(
        "<summary>Solution</summary>"
    )
    assert notebook.cells[-1].source.splitlines()[-1].startswith("Next: [")


def test_links_between_notebooks_lead_somewhere(path):
    for target in re.findall(r"\]\((\d\d_\w+\.ipynb)\)", prose(path)):
        assert (path.parent / target).exists(), target


def test_the_readme_names_its_sections_and_its_minutes(path):
    readme = (ROOT / "README.md").read_text()
    number, headings = path.stem[:2], re.findall(r"(?m)^## (.*)$", prose(path))
    place = rf"(?:\[{number}\]\(notebooks/{path.name}\)|\b{number}), \*([^*]+)\*"
    named = re.findall(place, readme)
    assert named or number == "09"
    assert set(named) <= set(headings)
    text, exercises = prose(path).split("## Exercises")
    read = math.ceil(len(text.split()) / 200)
    solve = sum(map(int, re.findall(r"\((\d+) minutes\)", exercises)))
    assert f"\n| {number} | {read} | {solve} | " in readme


def test_the_setup_cell_is_the_same_everywhere(path):
    assert code_cells(path)[0].source == code_cells(PATHS[0])[0].source
    assert f'REPOSITORY = "{REPOSITORY}"' in code_cells(path)[0].source


def test_there_is_more_prose_than_code_and_there_are_checks(path):
    lines = sum(len(c.source.splitlines()) for c in code_cells(path))
    words = len(prose(path).split())
    assert words >= 3 * lines
    asserts = [c for c in code_cells(path) if "assert " in c.source]
    assert len(asserts) >= 6
    pictures = sum(
        "image/png" in o.get("data", {}) for c in code_cells(path) for o in c.outputs
    )
    assert pictures >= 2
    assert any(
        "Panel(" in c.source or "bits_slider(" in c.source for c in code_cells(path)
    )


def plain_functions(source):
    """Return {name: syntax tree} of the functions, docstrings and `mq.` left out."""

    class Strip(ast.NodeTransformer):
        def visit_Attribute(self, node):
            self.generic_visit(node)
            if isinstance(node.value, ast.Name) and node.value.id == "mq":
                return ast.Name(node.attr, node.ctx)
            return node

    functions = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for part in ast.walk(node):
                body = getattr(part, "body", None)
                if (
                    isinstance(body, list)
                    and len(body) > 1
                    and isinstance(body[0], ast.Expr)
                    and isinstance(body[0].value, ast.Constant)
                ):
                    part.body = body[1:]
            functions[node.name] = ast.dump(Strip().visit(node))
    return functions


HELPERS = plain_functions(Path(mq.__file__).read_text())
TAUGHT = {
    "01_train": {"Net", "train", "evaluate"},
    "02_quantization_math": {
        "code_range",
        "calc_scale_zero_point",
        "own_grid",
        "quantize_tensor",
        "dequantize_tensor",
        "snr_db",
    },
    "03_calibration": {"activations", "range_mean", "range_mse", "range_entropy"},
    "04_quantized_forward": {
        "quantize_weight",
        "article_grid",
        "article_quantize",
        "article_layer",
        "article_ranges",
        "article_forward",
    },
    "05_integer_only": {
        "quantize_multiplier",
        "high_multiply",
        "rounding_shift",
        "multiply_by_quantized_multiplier",
        "int_mm_is_exact",
        "int_mm_is_quick",
        "int_matmul",
    },
    "06_below_8_bits": {
        "mse_weight_scale",
        "inverse_factor",
        "gptq",
        "layer_rows",
        "refit_scale",
        "quantize_best",
    },
    "07_quantization_aware_training": {
        "StraightThrough",
        "FakeQuantize",
        "MovingRange",
        "LearnedStep",
    },
    "08_real_engines": {"export_onnx", "export_tflite", "pack_codes", "unpack_codes"},
}


def test_what_it_teaches_is_the_helpers_code(path):
    shown = {}
    for cell in code_cells(path):
        if not cell.source.lstrip().startswith(("%", "!")):
            shown |= plain_functions(cell.source)
    for name in shown.keys() & HELPERS.keys():
        assert shown[name] == HELPERS[name], f"{name} differs from the helper's"
    assert TAUGHT.get(path.stem, set()) <= shown.keys()


def test_the_readme_picture_is_the_notebooks(path):
    pictures = [
        output.data["image/png"]
        for cell in code_cells(path)
        if "readme-picture" in cell.metadata.get("tags", [])
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    for picture in pictures:
        assert base64.b64decode(picture) == PICTURE.read_bytes()


def run_setup(path, folder, colab, preamble=""):
    """Run the notebook's setup cell in folder, as Colab would if colab; return it."""
    pretend = "import sys, types\nsys.path.remove('')\n"  # some kernels lack it
    if colab:
        pretend += "sys.modules['google.colab'] = types.ModuleType('colab')\n"
    cell = code_cells(path)[0].source
    twice = f"{pretend}{preamble}\ncode = {cell!r}\nexec(code)\nexec(code)\n"
    twice += "import importlib.util\nimport os\nprint(os.getcwd())\n"
    for module in ("mnistq_helpers", "exercise_checks"):
        twice += f"print(importlib.util.find_spec('{module}').origin)\n"
    return subprocess.run(
        [sys.executable, "-c", twice], cwd=folder, capture_output=True, text=True
    )


def test_the_setup_cell_finds_the_helper_and_may_run_twice(path):
    done = run_setup(path, path.parent, colab=False)
    assert done.returncode == 0, done.stderr
    cwd, *modules = done.stdout.split()
    assert Path(cwd) == path.parent
    found = [Path(cwd, module).resolve() for module in modules]
    assert found == [ROOT / "mnistq_helpers.py", path.parent / "exercise_checks.py"]


def test_in_colab_it_clones_once_or_says_what_is_missing(path, tmp_path):
    if path != PATHS[0]:
        return  # the cell is the same in all
    if REPOSITORY == "OWNER/REPO":
        done = run_setup(path, tmp_path, colab=True)
        assert "does not know its own address yet" in done.stderr
        assert list(tmp_path.iterdir()) == []
    # With an address: a bare clone, which git is told to take from the local disk.
    copy, bare = tmp_path / "published", tmp_path / "bare.git"
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "data")
    )
    spec = importlib.util.spec_from_file_location(
        "set_repository", copy / "tools" / "set_repository.py"
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.set_repository("somebody/something")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "published"]):
        subprocess.run([*git, *command], cwd=copy, check=True)
    clone = ["git", "clone", "-q", "--bare", copy, bare]
    subprocess.run(clone, check=True)
    colab = tmp_path / "content"  # it holds one notebook alone
    colab.mkdir()
    shutil.copy(copy / "notebooks" / path.name, colab)
    redirect = f"url.{bare.as_uri()}.insteadOf"
    preamble = (
        "import os\nos.environ.update(GIT_CONFIG_COUNT='1', "
        f"GIT_CONFIG_KEY_0={redirect!r}, "
        "GIT_CONFIG_VALUE_0='https://github.com/somebody/something')"
    )
    done = run_setup(colab / path.name, colab, True, preamble)
    assert done.returncode == 0, done.stderr
    cwd, *modules = done.stdout.split()
    checkout = colab / "mnistq"
    assert Path(cwd) == checkout / "notebooks"
    assert [Path(cwd, module).resolve() for module in modules] == [
        checkout / "mnistq_helpers.py",
        checkout / "notebooks" / "exercise_checks.py",
    ]
    badge = read(copy / "notebooks" / path.name).cells[0].source
    assert "github/somebody/something/blob" in badge and "OWNER/REPO" not in badge
