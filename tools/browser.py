"""Drive the notebooks in a real JupyterLab and a headless Chromium.

usage: python tools/browser.py times         median times from a key to its picture
       python tools/browser.py screenshots   docs/slider.gif and docs/playground.png
       python tools/browser.py first         time from a fresh clone to a moved slider
Needs playwright (in requirements.txt) and the system's own chromium or chrome; nothing
is downloaded. conftest.py uses the same functions to test all notebooks.
"""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SETTINGS = {
    # Its news would cover the page.
    "apputils-extension/notification": '{"fetchNews": "false"}',
    # Others do not render a cell that is out of view, and lose the keys pressed there.
    "notebook-extension/tracker": '{"windowingMode": "none"}',
    "docmanager-extension/plugin": '{"autosave": false}',
}
FOLDERS = (
    "JUPYTER_CONFIG_DIR",
    "JUPYTER_DATA_DIR",
    "JUPYTER_RUNTIME_DIR",
    "JUPYTERLAB_SETTINGS_DIR",
    "JUPYTERLAB_WORKSPACES_DIR",
    "IPYTHONDIR",
    "MPLCONFIGDIR",
)
KERNEL = "jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
# What went wrong in the cells: error outputs, with the first line of their cells.
FAILED = """() => [...jupyterapp.shell.currentWidget.content.model.cells]
  .map(cell => cell.sharedModel)
  .filter(cell => cell.cell_type == "code"
    && cell.outputs.some(output => output.output_type == "error"))
  .map(cell => cell.source.split("\\n")[0])"""
NOT_RUN = """() => [...jupyterapp.shell.currentWidget.content.model.cells]
  .map(cell => cell.sharedModel)
  .filter(cell => cell.cell_type == "code" && !cell.execution_count)
  .map(cell => cell.source.split("\\n")[0])"""
# Panels whose stored picture is shown beside the live one: their first words.
TWICE = """() => [...document.querySelectorAll(".jp-OutputArea")]
  .filter(area => area.querySelector(".widget-image")
    && area.querySelector(".jp-RenderedImage")
    && !area.closest(".jp-Cell").querySelector(".cm-content").innerText
      .includes("plt.show()"))  // a figure of its own, above the panel
  .map(area => area.innerText.split("\\n")[0])"""
# Keep what the kernel is asked by execute requests and sends because of them.
RECORD = """() => {
  const {kernel} = jupyterapp.shell.currentWidget.sessionContext.session;
  window.kept = {place: -1, requests: [], replies: [], messages: [], died: false};
  kernel.anyMessage.connect((_, {msg: {channel, header, parent_header, content}}) => {
    const {msg_type, msg_id} = header;
    if (msg_type == "execute_request") kept.requests.push(msg_id);
    else if (msg_type == "execute_reply") kept.replies.push(parent_header.msg_id);
    else if (channel == "iopub" && !msg_type.startsWith("comm"))
      kept.messages.push({msg_type, parent_header, content}); });
  kernel.statusChanged.connect((_, status) => {
    kept.died ||= ["autorestarting", "dead"].includes(status); }); }"""
# Run the next code cell with this source; the answer is whether there is one.
RUN_NEXT = """source => {
  const notebook = jupyterapp.shell.currentWidget.content;
  const place = [...notebook.model.cells].findIndex((cell, place) =>
    place > kept.place && cell.type == "code" && cell.sharedModel.source == source);
  if (place < 0) return false;
  notebook.deselectAll();
  notebook.activeCellIndex = kept.place = place;
  jupyterapp.commands.execute("notebook:run-cell");
  return true; }"""
LOADED = "() => !document.body.innerText.includes('Loading widget')"
# The text and the pixels of an output, without what belongs to its controls.
SEEN = """control => {
  const area = control.closest(".jp-OutputArea-output");
  const pixels = image => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL(); };
  const text = [...area.querySelectorAll(".widget-html-content")];
  return [text.map(e => e.innerText).join(),
    [...area.querySelectorAll("img")].filter(e => e.complete).map(pixels).join()]; }"""
TIMER = """control => {  // by the page's own clock: asking it all the time slows it
  const area = control.closest(".jp-OutputArea-output");
  const once = {capture: true, once: true};
  window.taken = 0;
  area.addEventListener("keydown", () => { window.start = performance.now(); }, once);
  area.addEventListener("load", () => {
    window.taken = performance.now() - window.start; }, once); }"""
CONTROLS = {  # sliders last: at 1 bit a network hardly minds a switch
    "checkbox": ".widget-checkbox input",
    "toggle": "button.widget-toggle-button:not(.mod-active)",
    "button": "button.widget-button",
    "slider": ".noUi-handle",
}


def find_browser():
    """Return (path of a browser, None), or (None, what is missing)."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return None, "playwright is not installed: pip install -r requirements.txt"
    found = [path for path in map(shutil.which, NAMES) if path]
    if not found:
        return None, f"no browser is installed: none of {', '.join(NAMES)} is on PATH"
    return found[0], None


def copy_checkout(folder):
    """Copy what notebooks need, so that nothing in the checkout changes."""
    ignore = shutil.ignore_patterns(".*", "__pycache__")
    for name in ("notebooks", "mnistq", "tools"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "mnistq_helpers.py", folder)
    (folder / "data").symlink_to(ROOT / "data")


@contextmanager
def serve(folder, python=sys.executable):
    """Run a JupyterLab with settings of its own on folder; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as temporary:
        for plugin, text in SETTINGS.items():
            path = Path(temporary, "JUPYTERLAB_SETTINGS_DIR", "@jupyterlab", plugin)
            path = path.with_name(f"{path.name}.jupyterlab-settings")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        command = [python, "-m", "jupyterlab", "--no-browser", "--allow-root"]
        command += [
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={port}",
            "--ServerApp.port_retries=0",
            "--IdentityProvider.token=",
            f"--ServerApp.root_dir={folder}",
            "--LabApp.news_url=None",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            "--LabApp.extension_manager=readonly",
            "--LabApp.expose_app_in_browser=True",
        ]
        environment = os.environ | {name: f"{temporary}/{name}" for name in FOLDERS}
        log = Path(temporary, "lab.log")
        with log.open("w") as output:
            server = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
            try:
                address = f"http://127.0.0.1:{port}"
                wait_for(f"{address}/api/status", server, log)
                yield address
            finally:
                server.terminate()
                server.wait(60)


def wait_for(address, server, log, seconds=180):
    """Return when the address answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")


THREAD = threading.local()


@contextmanager
def playwright():
    """Yield Playwright's driver: one for each thread, that of an outer call if any."""
    from playwright.sync_api import sync_playwright

    if running := getattr(THREAD, "driver", None):
        yield running
        return
    with sync_playwright() as THREAD.driver:
        try:
            yield THREAD.driver
        finally:
            THREAD.driver = None


@contextmanager
def browse(executable, size=(1200, 1000)):
    """Run a headless browser that reaches this machine only; yield it."""
    with playwright() as driver:
        options = {"executable_path": executable, "args": ["--no-sandbox"]}
        with driver.chromium.launch(**options) as browser:
            context = browser.new_context(
                viewport={"width": size[0], "height": size[1]}
            )
            # As with the network cable pulled: a badge is all that may be missing.
            context.route(
                lambda url: urlsplit(url).hostname != "127.0.0.1",
                lambda route: route.abort(),
            )
            yield context


@contextmanager
def opened(context, address, name, run=True, seconds=300):
    """Open a notebook, run all its cells; yield (page, [errors of the page])."""
    page, errors = context.new_page(), []
    page.set_default_timeout(1000 * seconds)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{address}/lab/tree/notebooks/{name}?reset")
    page.wait_for_function(f"window.{KERNEL}?.status == 'idle'")
    try:
        if run:
            # The promise is kept when all cells have run, or when one has failed.
            page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
            settle(page)
        yield page, errors
    finally:
        page.evaluate(f"{KERNEL}.shutdown()")
        page.close()


def settle(page, quiet=0.3, seconds=300):
    """Wait until the kernel has been idle for quiet seconds."""
    since, end = None, time.monotonic() + seconds
    while since is None or time.monotonic() < since + quiet:
        if time.monotonic() > end:
            raise TimeoutError(f"The kernel is still busy after {seconds} s.")
        if page.evaluate(f"{KERNEL}.status") == "idle":
            since = since or time.monotonic()
        else:
            since = None
        page.wait_for_timeout(20)


def controls(page):
    """Return [(kind, label, element)] of all controls in the page's outputs."""
    page.wait_for_function(LOADED)
    found = []
    for kind, selector in CONTROLS.items():
        for element in page.locator(f".jp-OutputArea-output {selector}").all():
            row = element
            if kind in ("slider", "checkbox"):
                widget = "xpath=ancestor::*[contains(@class, 'jupyter-widgets')][1]"
                row = element.locator(widget)
            found.append((kind, row.inner_text().split("\n")[0], element))
    return found


def changes(page, element, act, timeout=60):
    """Do act; return what it changed in the output, of {"text", "picture"}."""
    before = element.evaluate(SEEN)
    end = time.monotonic() + timeout
    act()
    while element.evaluate(SEEN) == before and time.monotonic() < end:
        page.wait_for_timeout(20)
    settle(page)
    pairs = zip(("text", "picture"), before, element.evaluate(SEEN), strict=True)
    return {name for name, old, new in pairs if old != new}


def press(kind, element):
    """Use a control by its keys."""
    element.focus()
    if kind == "slider":
        value, top = map(element.get_attribute, ("aria-valuenow", "aria-valuemax"))
        element.press("ArrowLeft" if float(value) >= float(top) else "ArrowRight")
    else:
        element.press("Space" if kind == "checkbox" else "Enter")


def drag(page, kind, element):
    """Use a control by the mouse."""
    if kind == "slider":
        box = element.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        value, low = map(element.get_attribute, ("aria-valuenow", "aria-valuemin"))
        way = 400 if float(value) <= float(low) else -400
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + way, y, steps=8)
        page.mouse.up()
    else:
        element.click()


def draw(page, stroke, finger=False, wait=True):
    """Draw a stroke, one of DIGITS, into the playground with the mouse or a finger."""
    field = page.locator(".field canvas")
    field.scroll_into_view_if_needed()
    box = field.bounding_box()
    points = [map(float, point.split()) for point in stroke.split(",")]
    places = [
        (box["x"] + x / 100 * box["width"], box["y"] + y / 100 * box["height"])
        for x, y in points
    ]
    if finger:  # playwright itself can only tap
        screen = page.context.new_cdp_session(page)
        for number, (x, y) in enumerate(places):
            touch = {"type": "touchMove" if number else "touchStart"}
            touch["touchPoints"] = [{"x": x, "y": y}]
            screen.send("Input.dispatchTouchEvent", touch)
        lift = {"type": "touchEnd", "touchPoints": []}
        screen.send("Input.dispatchTouchEvent", lift)
    else:
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=10)
        page.mouse.up()
    if wait:
        settle(page)


DIGITS = {  # strokes of a hand: x and y in percent of the field
    0: "50 20, 35 30, 30 50, 35 70, 50 80, 65 70, 70 50, 65 30, 50 20",
    1: "55 20, 45 80",
    3: "35 25, 50 20, 65 30, 60 42, 48 48, 65 55, 68 70, 52 80, 33 74",
    7: "30 25, 70 25, 45 85",
}


def time_keys(page, element, keys):
    """Return the median milliseconds from a key to the new picture in the page."""
    element.focus()
    taken = []
    for key in keys:
        element.evaluate(TIMER)
        element.press(key)
        page.wait_for_function("window.taken", timeout=60_000, polling=100)
        taken.append(page.evaluate("window.taken"))
        settle(page)
    return statistics.median(taken)


def times(context, address):
    """Print the medians for notebook 02's pictures, a drawing, and 04's accuracy."""
    with opened(context, address, "02_quantization_math.ipynb") as (page, _):
        time_sliders(page, "02", "bits")
    with opened(context, address, "13_playground.ipynb") as (page, _):
        field = page.locator(".field canvas")
        field.focus()
        field.press("Space")  # the pen is down: each arrow draws
        settle(page)
        median = time_keys(page, field, ["ArrowLeft", "ArrowDown"] * 6)
        print(f"13, a stroke drawn by a key: {median:.0f} ms", flush=True)
    with opened(context, address, "04_quantized_forward.ipynb") as (page, _):
        time_sliders(page, "04", "bits of the ")  # the whole test set


def time_sliders(page, name, start):
    """Print the median of each slider whose label starts so, moved to and fro."""
    for kind, label, element in controls(page):
        if kind == "slider" and label.startswith(start):
            value, low = map(element.get_attribute, ("aria-valuenow", "aria-valuemin"))
            keys = ["ArrowLeft", "ArrowRight"] * 4
            if float(value) <= float(low):
                keys.reverse()
            median = time_keys(page, element, keys)
            print(f"{name}, slider {label!r}: {median:.0f} ms", flush=True)


def screenshots(context, address):
    """Write the README's moving picture and that of the playground."""
    docs = ROOT / "docs"
    with opened(context, address, "02_quantization_math.ipynb") as (page, _):
        found = [c for c in controls(page) if c[1] == "bits"]
        slider = found[1][2]  # of a digit; the first moves a staircase
        area = slider.locator(
            "xpath=ancestor::*[contains(@class,'jp-OutputArea-output')]"
        )
        narrow = ".jp-OutputArea-output .widget-vbox { max-width: 490px }"
        page.add_style_tag(content=narrow)
        slider.focus()
        slider.press("End")
        frames = []
        for _ in range(8):
            settle(page)
            frames.append(area.last.screenshot())
            slider.press("ArrowLeft")
        write_gif(docs / "slider.gif", frames)
    with opened(context, address, "13_playground.ipynb") as (page, _):
        page.set_viewport_size({"width": 1200, "height": 1500})  # all of it in view
        draw(page, DIGITS[3])
        page.mouse.move(0, 0)
        area = page.locator(".jp-OutputArea-output:has(.field)")
        area.screenshot(path=docs / "playground.png")


def first(context, _):
    """Print the time from a fresh clone to the first moved slider, step by step."""
    start = time.monotonic()

    def say(step):
        print(f"{time.monotonic() - start:4.0f} s: {step}", flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "mnistq")
        subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
        say("cloned")
        subprocess.run([sys.executable, "-m", "venv", folder / ".venv"], check=True)
        python = folder / ".venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        pip = [python, "-m", "pip", "install", "--quiet", "-r", "requirements.txt"]
        subprocess.run(pip, cwd=folder, check=True)
        say("installed")
        with serve(folder, python) as address:
            say("JupyterLab runs")
            with opened(context, address, "02_quantization_math.ipynb") as (page, _):
                say("all cells of notebook 02 have run")
                _, label, element = next(c for c in controls(page) if c[0] == "slider")
                changes(page, element, lambda: press("slider", element))
                say(f"the slider {label!r} has moved")


def write_gif(path, pictures, width=500):
    """Write the left width pixels of PNGs as one moving picture, to and fro."""
    import io

    from PIL import Image

    frames = []
    for picture in pictures:
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        frame = image.crop((0, 0, width, image.height))
        frames.append(frame.quantize(64, dither=Image.Dither.NONE))
    first, *others = frames + frames[-2:0:-1]
    times = [700] * (1 + len(others))
    first.save(path, save_all=True, append_images=others, duration=times, loop=0)


def main():
    works = {work.__name__: work for work in (times, screenshots, first)}
    work = works.get("".join(sys.argv[1:]))
    if work is None:
        raise SystemExit(__doc__)
    executable, missing = find_browser()
    if missing:
        raise SystemExit(missing)
    with tempfile.TemporaryDirectory() as folder:
        copy_checkout(Path(folder))
        with serve(folder) as address, browse(executable) as context:
            work(context, address)


if __name__ == "__main__":
    main()
