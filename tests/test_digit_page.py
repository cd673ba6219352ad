"""The page of digits, in a real browser: it computes what Python computes."""

import base64
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch
from hands import HANDS, inked
from helpers import INT32_MAX, INT32_MIN, random_network, tflite_multiply
from torch import nn

import mnistq_helpers as mq
from tools import browser

EXECUTABLE, MISSING = browser.find_browser()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=str(MISSING))


def load_build():
    path = mq.ROOT / "book" / "digits" / "build.py"
    spec = importlib.util.spec_from_file_location("build", path)
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    return build


BUILD = load_build()


class Page:
    """The page, opened as a file; whoever draws in a notebook has another thread."""

    def __init__(self, folder):
        self.thread = ThreadPoolExecutor(1)
        self.opened, self.errors, self.asked = ExitStack(), [], []
        self.do(lambda: self._open(folder / "digits.html"))

    def _open(self, path):
        context = self.opened.enter_context(browser.browse(EXECUTABLE, (390, 844)))
        context.unroute_all()  # what it asks for is looked at instead
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def do(self, action):
        return self.thread.submit(action).result()

    def evaluate(self, script, value=None):
        return self.do(lambda: self.page.evaluate(script, value))

    def close(self):
        self.do(self.opened.close)
        self.thread.shutdown()


@pytest.fixture(scope="module")
def networks():
    return BUILD.networks()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    BUILD.build(folder)
    page = Page(folder)
    yield page
    page.close()


def as_text(codes):
    return base64.b64encode(codes.contiguous().numpy().tobytes()).decode()


def computed(page, name, codes):
    """Return the codes of all steps, uint8 [N, all of them], that the page computes."""
    script = """([name, text, count]) => {
      const codes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      const size = codes.length / count;
      return Array.from({ length: count }, (_, i) => {
        const image = codes.subarray(i * size, (i + 1) * size);
        const made = mnistq.run(mnistq.nets[name], image);
        return made.map((part) => btoa(String.fromCharCode(...part))); }); }"""
    rows = page.evaluate(script, [name, as_text(codes), len(codes)])
    found = b"".join(base64.b64decode(part) for row in rows for part in row)
    return torch.frombuffer(bytearray(found), dtype=torch.uint8).view(len(codes), -1)


def add(page, qnet, path):
    mq.export_js(qnet, path)
    page.evaluate(path.read_text())


def expected(qnet, images):
    codes = qnet.codes(images)
    first, *rest = codes.values()
    return first, torch.cat([x.flatten(1) for x in rest], 1)


@pytest.mark.parametrize("name", ["8_bits", "4_bits", "2_bits", "1_bit"])
def test_a_thousand_digits_have_the_same_codes(page, networks, test_set, name):
    first, codes = expected(networks[name], test_set[0][:1000])
    assert torch.equal(computed(page, name, first), codes)


@pytest.mark.parametrize("seed", range(5))
def test_random_networks_have_the_same_codes(page, seed, tmp_path):
    qnet, images = random_network(seed, "fixed")
    add(page, qnet, tmp_path / "random.js")
    first, codes = expected(qnet, images)
    assert torch.equal(computed(page, "random", first), codes)


def test_a_network_of_another_shape_has_the_same_codes(page, tmp_path):
    """Pooling that stands alone and overlaps, kernels of no square, no bias."""
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.MaxPool2d((3, 2), (2, 2)),
        nn.Conv2d(1, 3, (3, 5), bias=False),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(3, 4, (2, 1)),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 7),
    )
    images = torch.randn(20, 1, 28, 28)
    qnet = mq.quantize_net(net, mq.calibrate(net, images), 3, 5)
    add(page, qnet, tmp_path / "other.js")
    grid = (qnet.in_bits, qnet.in_scale, qnet.in_zero_point)
    found = computed(page, "other", mq.quantize_tensor(images, *grid).tensor)
    assert torch.equal(found[:, -7:], qnet.codes(images)["output"])


def test_the_multiplier_is_exact_at_both_ends_of_int32(page):
    """Against gemmlowp's two roundings in Python's integers; ties, shifts left."""
    ends = [
        INT32_MIN,
        INT32_MIN + 1,
        INT32_MAX - 1,
        INT32_MAX,
        0,
        1,
        -1,
        2**30,
        -(2**30),
    ]
    near = [
        way * (2**k + more)
        for k in (15, 16, 17, 29)
        for more in (-1, 0, 1)
        for way in (1, -1)
    ]
    torch.manual_seed(0)
    some = torch.randint(INT32_MIN, INT32_MAX, (40,)).tolist()
    factors = [2**30, 2**30 + 1, 3 * 2**29, INT32_MAX - 1, INT32_MAX]
    cases = [
        (acc, m0, shift)
        for acc in (*ends, *near, *some)
        for m0 in factors
        for shift in (-30, -5, -1, 0, 1, 2, 8, 15, 30, 31)
    ]
    # Ties of the second rounding: odd multiples of half of 2**shift, before it.
    cases += [
        (way * 2**shift * odd, 2**30, shift)
        for shift in (1, 4, 9)
        for odd in (1, 3)
        for way in (1, -1)
    ]
    found = page.evaluate("cases => cases.map((c) => mnistq.multiply(...c))", cases)
    assert found == [tflite_multiply(*case) for case in cases]
    assert page.evaluate(f"mnistq.highMultiply({INT32_MIN}, {INT32_MIN})") == INT32_MAX


def test_a_drawing_is_prepared_as_in_python(page):
    sizes = ((80, 6), (50, 12), (16, 6), (16, 10), (80, 2), (30, 3), (90, 16))
    for high, pen in sizes:
        inks = [
            inked(digit, high, pen)
            for hand in HANDS.values()
            for digit in hand.values()
        ]
        pixels = [(255 * ink).round().to(torch.uint8) for ink in inks]
        script = """texts => texts.map((text) => [...prepareDigit(
          Uint8Array.from(atob(text), (c) => c.charCodeAt(0)), 112)])"""
        found = torch.tensor(page.evaluate(script, [as_text(ink) for ink in pixels]))
        pictures = torch.stack([mq.prepare_digit(ink) for ink in inks])
        assert torch.equal(found, (255 * pictures).round().long().flatten(1))
    assert page.evaluate(
        "prepareDigit(new Uint8Array(12544), 112).every((x) => x === 0)"
    )


def answers(page):
    page.do(lambda: page.page.wait_for_timeout(100))  # it reads in the next frame
    return page.do(lambda: page.page.locator(".answer").all_inner_texts())


def test_a_drawn_digit_is_read_by_all_four_and_cleared(page):
    assert answers(page) == ["-"] * 4
    for digit, stroke in browser.DIGITS.items():
        page.do(lambda stroke=stroke: browser.draw(page.page, stroke, wait=False))
        assert answers(page) == [str(digit)] * 4
        page.do(lambda: page.page.get_by_role("button", name="Clear").click())
        assert answers(page) == ["-"] * 4


def test_buttons_give_the_digits_of_the_test_set(page):
    for digit in range(10):
        name = f"A {digit} from the test set"
        page.do(lambda name=name: page.page.get_by_role("button", name=name).click())
        assert answers(page) == [str(digit)] * 4
    said = page.page.get_by_role("status")
    page.do(lambda: said.filter(has_text="8 bits reads 9, ").wait_for())


def test_it_asks_for_its_own_files_alone_and_fits_a_phone(page):
    assert page.errors == []
    assert all(address.startswith("file:") for address in page.asked)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_network_is_downloaded_packed(page, networks):
    """At 1 bit 60 kB: base64 takes a third more, which compression takes back."""
    for name, qnet in networks.items():
        facts = page.evaluate(f"digitFacts.networks['{name}']")
        assert facts["download"] < 1.01 * qnet.nbytes
        assert page.evaluate(f"mnistq.nets['{name}'].bytes") < 1.01 * qnet.nbytes
    assert facts["download"] < 60_000


def test_a_network_of_another_rounding_is_refused(ranges, net, tmp_path):
    qnet = mq.quantize_net(net, ranges, requantize="float")
    with pytest.raises(ValueError, match="cannot round as requantize='float'"):
        mq.export_js(qnet, tmp_path / "n.js")
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_the_page_does_not_have_is_refused_by_name(tmp_path):
    images = torch.randn(4, 1, 28, 28)
    for layer in (nn.Conv2d(1, 2, 3, stride=2), nn.Conv2d(1, 2, 3, padding=1)):
        net = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(10))
        net(images)
        qnet = mq.quantize_net(net, mq.calibrate(net, images))
        with pytest.raises(ValueError, match="QuantizedLayer that the page does not"):
            mq.export_js(qnet, tmp_path / "net.js")
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AvgPool2d(2), nn.Flatten())
    net = net.append(nn.LazyLinear(10))
    net(images)
    qnet = mq.quantize_net(net, mq.calibrate(net, images))
    with pytest.raises(ValueError, match="QuantizedAverage that the page does not"):
        mq.export_js(qnet, tmp_path / "net.js")
    assert not list(tmp_path.iterdir())
