"""The notebooks' rules: what must be so in each, whatever it teaches."""

import ast
import base64
import importlib.util
import io
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest

import mnistq_helpers as mq

ROOT = mq.ROOT
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DOCS = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data" / "README.md"]
TEXTS += DOCS
REPOSITORY = (ROOT / "tools" / "repository.txt").read_text().strip()
PICTURE = ROOT / "docs" / "accuracy.png"
each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)


def load_tool(path):
    """Return a module of tools/, which is no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


METADATA = load_tool(ROOT / "tools" / "execute_notebooks.py").METADATA


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [c for c in read(path).cells if c.cell_type == "code"]


def prose(path):
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")


def headings(path):
    without_code = re.sub(r"(?ms)^```.*?^```", "", prose(path))
    return re.findall(r"(?m)^#{1,6} (.*?) *$", without_code)


@each_notebook
def test_it_was_run_in_order_from_a_fresh_kernel_without_an_error(path):
    cells = code_cells(path)
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            if output.get("name") == "stderr":  # only a runtime's notices
                assert all(x.startswith("INFO: ") for x in output.text.splitlines())


@each_notebook
def test_it_is_small_and_clean(path):
    notebook = read(path)
    assert notebook.metadata == METADATA
    assert path.stat().st_size <= 500_000
    for number, cell in enumerate(notebook.cells):
        assert cell.id == f"cell-{number:02d}"
        assert set(cell.metadata) <= {"tags"}
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            assert "image/svg+xml" not in data
            assert "application/vnd.jupyter.widget-view+json" not in data
            if "[interactive:" in data.get("text/plain", ""):
                assert "image/png" in data  # a panel where nothing runs


@each_notebook
def test_cells_are_short_and_do_not_end_in_a_semicolon(path):
    for cell in code_cells(path):
        assert not cell.source.rstrip().endswith(";")
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= 25, cell.source
    formulas_and_code = r"(?s)```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|!\["
    assert "!" not in re.sub(formulas_and_code, "", prose(path))


@each_notebook
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
    sections = re.findall(r"(?m)^## (.*)$", prose(path))
    assert sections[-2:] == ["What we found", "Exercises"]
    exercises = prose(path).split("## Exercises")[1]
    numbers = re.findall(r"\*\*(\d)\. .*\(\d+ minutes\)", exercises)
    assert numbers == [str(n + 1) for n in range(len(numbers))] != []
    for part in ("Hint", "Solution"):
        assert exercises.count(f"<summary>{part}</summary>") == len(numbers)


@each_notebook
def test_it_leads_on_to_the_next_one(path):
    last = read(path).cells[-1].source.splitlines()[-1]
    following = PATHS[PATHS.index(path) + 1 :]
    if following:
        title = read(following[0]).cells[0].source.splitlines()[0].removeprefix("# ")
        assert last == f"Next: [{title}]({following[0].name})"
    else:
        assert last == "Next: [the README](../README.md)"


@each_notebook
def test_an_equation_bears_its_notebooks_number(path):
    number = int(path.stem[:2])
    tags = re.findall(r"\\tag\{([\d.]+)\}", prose(path))
    assert tags == [f"{number}.{n + 1}" for n in range(len(tags))]


def anchor(heading, suffix):
    """Return how a link names a heading: in Jupyter, or in a text on GitHub."""
    if suffix == ".ipynb":
        return heading.replace(" ", "-")
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def broken_links(path, text):
    """Return the links in the text of the file path that lead nowhere in here."""
    text = re.sub(r"(?s)```.*?```|`[^`\n]*`", "", text)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        name, _, place = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (
            place and place not in {anchor(h, target.suffix) for h in headings(target)}
        ):
            broken.append(link)
    return broken


@pytest.mark.parametrize(
    "path", PATHS + TEXTS, ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_links_lead_somewhere(path):
    assert broken_links(path, prose(path)) == []


def test_a_link_to_no_file_or_to_no_heading_is_found():
    heading = headings(PATHS[0])[1].replace(" ", "-")
    good = f"[a]({PATHS[0].name}) [b]({PATHS[0].name}#{heading}) [c](https://x.org/y)"
    assert broken_links(PATHS[1], good) == []
    for bad in ("00_none.ipynb", f"{PATHS[0].name}#None", "#None", "../READ.md"):
        assert broken_links(PATHS[1], f"{good} [d]({bad})") == [bad]
    assert broken_links(TEXTS[0], "[a](#to-look-up) [b](#Look)") == ["#Look"]


@each_notebook
def test_the_docs_name_its_sections_and_its_minutes(path):
    docs = "\n".join(doc.read_text(encoding="utf-8") for doc in DOCS)
    number = path.stem[:2]
    link = rf"\[{number}\]\(\.\./notebooks/{path.name}\)"
    named = re.findall(rf"(?:{link}|\b{number}), \*([^*]+)\*", docs)
    assert named or path == PATHS[-1]
    assert set(named) <= set(headings(path))
    text, exercises = prose(path).split("## Exercises")
    read = math.ceil(len(text.split()) / 200)
    solve = sum(map(int, re.findall(r"\((\d+) minutes\)", exercises)))
    assert f"\n| {number} | {read} | {solve} | " in docs


def test_the_readme_lists_the_notebooks():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    badge = r"\[!\[Colab\]\(https://[^)]*badge\.svg\)\]"
    colab = "https://colab.research.google.com/github"
    row = rf"(?m)^\| \[(\d\d) .*?\]\(notebooks/(.*?)\) \|.*\| {badge}\((.*)\) \|$"
    assert re.findall(row, readme) == [
        (
            path.stem[:2],
            path.name,
            f"{colab}/{REPOSITORY}/blob/main/notebooks/{path.name}",
        )
        for path in PATHS
    ]


def test_the_readmes_first_numbers_are_measured():
    images, labels = mq.mnist(train=False)
    net = mq.load_net()
    ranges = mq.calibrate(net, mq.mnist(train=True)[0][:1000])
    small = mq.QuantizedNet.load(mq.LOW_BITS / "w2a2_long.mnistq")
    models = net, mq.quantize_net(net, ranges), small, mq.load_net(mq.SHIFTED)
    right = [f"{mq.evaluate(model, images, labels):.2%}" for model in models]
    sizes = sum(p.nbytes for p in net.parameters()), models[1].nbytes, small.nbytes
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    said = re.findall(r"\d\d\.\d\d %", readme.split("```")[0])
    assert [number.replace(" ", "") for number in said] == right
    first = (
        f"{sizes[0] / 1e6:.2f} MB → {sizes[1] / 1e3:.0f} kB → {sizes[2] / 1e3:.0f} kB"
    )
    assert first in readme


def test_only_addresses_change_with_the_repository():
    tool = load_tool(ROOT / "tools" / "set_repository.py")
    text = (
        'a/b "AAa/bAA" https://github.com/a/b https://github.com/a/bc '
        "https://github.com/a/b.c https://github.com/a/b/blob/x. "
        "https://github.com/x/a/b https://colab.research.google.com/github/a/b/blob "
        'REPOSITORY = "a/b" REPOSITORY = \\"a/b\\" https://a.github.io/b. '
        "https://a.github.io/bc"
    )
    new = tool.with_address(text, "a/b", "some/thing")
    assert new == (
        'a/b "AAa/bAA" https://github.com/some/thing https://github.com/a/bc '
        "https://github.com/a/b.c https://github.com/some/thing/blob/x. "
        "https://github.com/x/a/b "
        "https://colab.research.google.com/github/some/thing/blob "
        'REPOSITORY = "some/thing" REPOSITORY = \\"some/thing\\" '
        "https://some.github.io/thing. https://a.github.io/bc"
    )
    assert tool.with_address(new, "some/thing", "a/b") == text


@pytest.mark.parametrize("path", [*PATHS, TEXTS[0]], ids=lambda p: p.stem)
def test_there_and_back_a_short_address_leaves_no_trace(path):
    tool = load_tool(ROOT / "tools" / "set_repository.py")
    text = path.read_text(encoding="utf-8")
    short = tool.with_address(text, REPOSITORY, "a/b")
    assert REPOSITORY not in short
    assert tool.with_address(short, "a/b", REPOSITORY) == text


@each_notebook
def test_the_setup_cell_is_the_same_everywhere(path):
    assert code_cells(path)[0].source == code_cells(PATHS[0])[0].source
    assert f'REPOSITORY = "{REPOSITORY}"' in code_cells(path)[0].source


@each_notebook
def test_its_settings_stand_in_one_cell_after_the_imports(path):
    cells = code_cells(path)
    tagged = [
        n for n, c in enumerate(cells) if "parameters" in c.metadata.get("tags", [])
    ]
    assert len(tagged) == 1
    assert "\nimport mnistq_helpers as mq\n" in cells[tagged[0] - 1].source
    names = {}
    for node in ast.parse(cells[tagged[0]].source).body:  # nothing is computed there
        assert isinstance(node, ast.Assign) and len(node.targets) == 1
        names[node.targets[0].id] = ast.unparse(node.value)
    assert names["CHECKPOINT"] == "mq.COMMITTED"
    others = [c.source for n, c in enumerate(cells) if n not in tagged]
    for name in names:  # set here alone, and of use
        assert not re.search(rf"(?m)^ *{name} =", "\n".join(others)), name
        assert re.search(rf"\b{name}\b", "\n".join(others)), name


def private_names(source):
    """Return what begins with an underscore and is taken from mq or from mnistq."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in (
            "mnistq",
            "mnistq_helpers",
        ):
            found += [a.name for a in node.names if a.name.startswith("_")]
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            owner = ast.unparse(node.value).split(".")[0]
            found += [node.attr] if owner in ("mq", "mnistq", "check") else []
    return found


@each_notebook
def test_it_uses_no_private_name(path):
    for cell in code_cells(path):
        if not cell.source.lstrip().startswith(("%", "!")):
            assert private_names(cell.source) == []


def test_a_private_name_is_found():
    assert private_names("x = mq.quantizers._grid(1)") == ["_grid"]
    assert private_names("from mnistq.files import _take, take") == ["_take"]
    assert private_names("x._replace(scale=mq.STD)") == []


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


ROOMS = {}  # name: the syntax trees that bear it
for room in sorted((ROOT / "mnistq").rglob("*.py")):
    if "exercises" not in room.parts[len(ROOT.parts) :]:  # named as the stubs are
        for name, tree in plain_functions(room.read_text(encoding="utf-8")).items():
            ROOMS.setdefault(name, []).append(tree)

TAUGHT = {
    "01_train": {"Net", "train", "evaluate"},
    "02_quantization_math": {
        "code_range",
        "calc_scale_zero_point",
        "quantize_tensor",
        "dequantize_tensor",
        "snr_db",
    },
    "03_calibration": {"activations", "range_mean", "range_mse", "range_entropy"},
    "04_quantized_forward": {"quantize_weight"},
    "05_published_code": {
        "article_grid",
        "article_quantize",
        "article_layer",
        "article_ranges",
        "article_forward",
    },
    "06_integer_only": {
        "quantize_multiplier",
        "high_multiply",
        "rounding_shift",
        "multiply_by_quantized_multiplier",
    },
    "07_below_8_bits": {"best_scale", "gptq_codes", "fit_layer", "refit_scale"},
    "08_quantization_aware_training": {
        "StraightThrough",
        "FakeQuantize",
        "MovingRange",
        "LearnedStep",
    },
    "09_real_engines": set(),
    "10_in_c": set(),
    "11_your_own": set(),
    "12_todays_formats": {"gptq_round"},
    "13_playground": {"area_average", "stroke_width"},
}


@each_notebook
def test_what_it_teaches_is_the_rooms_code(path):
    shown = {}
    for cell in code_cells(path):
        if not cell.source.lstrip().startswith(("%", "!")):
            shown |= plain_functions(cell.source)
    both = shown.keys() & ROOMS.keys()
    assert [name for name in sorted(both) if shown[name] not in ROOMS[name]] == []
    assert TAUGHT[path.stem] <= both


def test_the_readme_shows_the_picture_of_the_one_cell_that_is_tagged_so():
    pictures = [
        output.data["image/png"]
        for path in PATHS
        for cell in code_cells(path)
        if "readme-picture" in cell.metadata.get("tags", [])
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 1
    content = PICTURE.read_bytes()
    assert base64.b64decode(pictures[0]) == content
    assert plt.imread(io.BytesIO(content)).std() > 0.01  # whole, and not empty
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"!\[[^\]]{20,}\]\(docs/accuracy\.png\)", readme)


def run_setup(folder, colab=False, preamble="", path=PATHS[0]):
    """Run the setup cell twice in folder, as in Colab if colab; return the process.

    It prints, as JSON, the working directory, where the modules are found, and
    how often the folder of the first of them is in sys.path.
    """
    pretend = "import sys, types\nsys.path.remove('')\n"  # some kernels lack it
    if colab:
        pretend += "sys.modules['google.colab'] = types.ModuleType('colab')\n"
    cell = code_cells(path)[0].source
    program = f"""{pretend}{preamble}
code = {cell!r}
exec(code)
exec(code)
import importlib.util, json, os
modules = ("mnistq_helpers", "mnistq")
origins = [importlib.util.find_spec(name).origin for name in modules]
times = sys.path.count(os.path.dirname(origins[0]))
print(json.dumps([os.getcwd(), *origins, times]))
"""
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True
    )


def assert_finds(done, folder, root):
    """Check that it found root's modules, and stayed in folder."""
    assert done.returncode == 0, done.stderr
    cwd, *modules, times = json.loads(done.stdout)
    assert Path(cwd) == folder.resolve()
    assert [Path(module).resolve() for module in modules] == [
        root.resolve() / "mnistq_helpers.py",
        root.resolve() / "mnistq" / "__init__.py",
    ]
    assert times == 1


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the checkout, without its data, under a path with a space."""
    copy = tmp_path_factory.mktemp("setup") / "a copy of it"
    names = (".*", "__pycache__", "runs", "data")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*names))
    return copy


@pytest.mark.parametrize("folder", [".", "notebooks", "tests"])
def test_the_setup_cell_finds_the_helper_from_any_folder(folder):
    assert_finds(run_setup(ROOT / folder), ROOT / folder, ROOT)


def test_the_setup_cell_works_in_a_path_with_a_space(copied):
    deep = copied / "notebooks" / "one more"
    deep.mkdir()
    assert_finds(run_setup(deep), deep, copied)


def test_a_notebook_that_was_downloaded_alone_says_what_is_missing(tmp_path):
    done = run_setup(tmp_path)
    assert done.returncode != 0
    said = done.stderr.splitlines()[-1]
    assert said.startswith("FileNotFoundError: mnistq_helpers.py is neither in")
    assert str(tmp_path) in said and f"https://github.com/{REPOSITORY}" in said
    assert len(re.findall(r"[.!?](?= |$)", said)) == 1  # one sentence
    assert list(tmp_path.iterdir()) == []


def test_in_colab_a_copy_without_an_address_says_so(tmp_path):
    if REPOSITORY != "OWNER/REPO":
        pytest.skip("this copy has an address")
    done = run_setup(tmp_path, colab=True)
    assert "does not know its own address yet" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_in_colab_it_clones_once(copied, tmp_path):
    """From a bare clone, which git is told to take from the local disk."""
    load_tool(copied / "tools" / "set_repository.py").set_repository("some/thing")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "published"]):
        subprocess.run([*git, *command], cwd=copied, check=True)
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", copied, bare], check=True)
    colab = tmp_path / "content"  # it holds one notebook alone
    colab.mkdir()
    notebook = copied / "notebooks" / PATHS[0].name
    shutil.copy(notebook, colab)
    redirect = f"url.{bare.as_uri()}.insteadOf"
    preamble = (
        "import os\nos.environ.update(GIT_CONFIG_COUNT='1', "
        f"GIT_CONFIG_KEY_0={redirect!r}, "
        "GIT_CONFIG_VALUE_0='https://github.com/some/thing')"
    )
    done = run_setup(colab, True, preamble, colab / notebook.name)
    assert_finds(done, colab, colab / "mnistq")
    badge = read(notebook).cells[0].source
    assert "github/some/thing/blob" in badge and "OWNER/REPO" not in badge
