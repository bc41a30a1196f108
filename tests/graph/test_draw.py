"""Pictures: read again by what reads them, and the page stepped through in a real browser."""

import json
import os
import re
import struct
import sys
import xml.etree.ElementTree as ElementTree
import zlib
from itertools import combinations
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from helpers import browser
from helpers.pictures import faults
from jaxgrad import InputError, ledger, neuron, tag
from jaxgrad._graph.draw.fold import MOST_BOXES
from jaxgrad._graph.draw.html import html
from jaxgrad._graph.draw.layout import layout
from jaxgrad._graph.draw.png import png
from jaxgrad._graph.draw.save import WRITERS, save
from jaxgrad._graph.draw.svg import inline, svg
from jaxgrad._graph.draw.text import dot, mermaid, to_json
from jaxgrad._graph.graph import Edge, Graph, Node

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</script><b>\"'&\\ [0]\x07\u2202%"


def of_neuron():
    return ledger(neuron.forward)(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1])).graph


def forked():
    def fun(x, xs):
        a = tag(x * x, "a")
        b = tag(3 * a, "b")

        def step(h, v):
            h = tag(0.5 * h + v * x, "h")
            return h, None

        return b + a + x + lax.scan(step, b, xs)[0]

    return ledger(fun)(2.0, jnp.arange(3.0)).graph


def chain(n):
    """A ladder of n intermediates, made by hand: no time goes into compiling."""
    names = ["x", "w0", "w1", *(f"h{i}" for i in range(n))]
    kinds = ["argument"] * 3 + ["tag"] * n
    nodes = {
        a: Node(a, kind, np.float32(i), np.float32(-i)) for i, (a, kind) in enumerate(zip(names, kinds, strict=True))
    }
    ends = [("x", "h0"), *((f"h{i}", f"h{i + 1}") for i in range(n - 1)), *((f"w{i % 2}", f"h{i}") for i in range(n))]
    ends += [(f"h{i}", f"h{i + 2}") for i in range(0, n - 2, 3)]
    return Graph(nodes, {e: Edge(*e, np.float32(0.5), np.float32(0.25)) for e in ends}, names[-1])


def hostile():
    nodes = {
        HOSTILE: Node(HOSTILE, "argument", np.float32(np.nan), np.float32(np.inf)),
        "y": Node("y", "tag", np.zeros((3, 0)), None, "no gradient here"),
    }
    return Graph(nodes, {(HOSTILE, "y"): Edge(HOSTILE, "y", None, np.float32(-np.inf), "not kept")}, "y")


GRAPHS = {"neuron": of_neuron, "forked": forked, "chain of 200": lambda: chain(200), "hostile": hostile}


@pytest.fixture(params=GRAPHS, scope="module")
def graph(request):
    return GRAPHS[request.param]()


def texts(root, kind):
    return [element.text for element in root.iter(f"{SVG}text") if element.get("class") == kind]


# Layout


def test_no_two_boxes_overlap_and_all_are_on_the_page(graph):
    placed = layout(graph)
    for a, b in combinations(placed.boxes, 2):
        apart = abs(a.x - b.x) >= (a.width + b.width) / 2 or abs(a.y - b.y) >= (a.height + b.height) / 2
        assert apart, (a.name, b.name)
    for box in placed.boxes:
        assert box.width / 2 <= box.x <= placed.width - box.width / 2
        assert box.height / 2 <= box.y <= placed.height - box.height / 2


def test_arrows_go_one_way(graph):
    placed = layout(graph)
    for arrow in placed.arrows:
        if arrow.source != arrow.target:
            start, end = arrow.points[0], arrow.points[-1]
            assert start[placed.downward] < end[placed.downward]


def test_every_node_and_edge_is_drawn_or_folded_into_one_that_is(graph):
    placed = layout(graph)
    shown = [name for box in placed.boxes for name in (box.folded or (box.name,))]
    assert sorted(shown) == sorted(graph.nodes)
    home = {name: box.name for box in placed.boxes for name in (box.folded or (box.name,))}
    outside = [ends for ends in graph.edges if home[ends[0]] != home[ends[1]] or ends[0] == ends[1]]
    assert sorted(ends for arrow in placed.arrows for ends in arrow.edges) == sorted(outside)
    assert len(placed.boxes) <= MOST_BOXES


def test_200_nodes_that_repeat_are_one_box_with_the_first_and_last_of_them():
    placed = layout(chain(200))
    (box,) = [box for box in placed.boxes if box.folded]
    assert (box.value, box.extent) == ("192 x h: h4 .. h195", "h4 = 7 .. h195 = 198")
    assert box.grad == "dh199/dh4 = -7 .. dh199/dh195 = -198"
    assert {"h0", "h3", "h196", "h199"} <= {box.name for box in placed.boxes}


def test_no_two_factors_stand_on_each_other_and_none_on_a_box(graph):
    assert list(faults(layout(graph))) == []


def test_the_output_is_bold_where_it_is_folded_too():
    whole = chain(200)
    last = Graph({**whole.nodes}, {**whole.edges}, "h100")
    (box,) = [box for box in layout(last).boxes if "h100" in box.folded]
    assert f'<g class="node tag output folded" data-name="{box.name}">' in svg(last)


# Formats


def test_svg_shows_each_name_value_gradient_and_local_derivative():
    root = ElementTree.fromstring(svg(of_neuron()))
    assert texts(root, "value") == [
        "x0 = 1", "x1 = 2", "w0 = 0.5", "w1 = -0.3", "w2 = 0.1", "z = -2.235e-08", "k = 1", "h = 2", "f = 0.5"
    ]  # fmt: skip
    assert texts(root, "grad")[5:] == ["df/dz = 0.25", "df/dk = -0.25", "df/dh = -0.25", "df/df = 1"]
    assert texts(root, "factor") == ["0.5", "-0.3", "1", "2", "1", "-1", "1", "-0.25"]
    assert "prefers-color-scheme: dark" in svg(of_neuron())


def test_the_picture_in_the_readme_is_the_neurons():
    root = Path(__file__).parents[2]
    assert "](tests/graph/neuron.svg)" in (root / "README.md").read_text(encoding="utf-8")
    assert (root / "tests" / "graph" / "neuron.svg").read_text(encoding="utf-8") == svg(of_neuron())


def test_svg_and_html_are_well_formed_for_any_names(graph):
    root = ElementTree.fromstring(svg(graph))
    assert len(texts(root, "value")) == sum(1 + bool(box.extent) for box in layout(graph).boxes)
    page = html(graph)
    assert page.count("</script>") == 2
    assert not re.search(r"""(src|href)\s*=|url\((?!#)|@import|https?://(?!www\.w3\.org/2000/svg)""", page)
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    assert len(data["edges"]) == len(layout(graph).arrows)


def test_json_has_every_number_in_full(graph):
    data = json.loads(to_json(graph))
    assert data["output"] == graph.output
    assert [node["name"] for node in data["nodes"]] == list(graph.nodes)
    assert [(edge["source"], edge["target"]) for edge in data["edges"]] == list(graph.edges)
    for edge in data["edges"]:
        want = graph.edges[edge["source"], edge["target"]]
        np.testing.assert_array_equal(np.asarray(edge["contribution"], np.float32), want.contribution)


def test_dot_and_mermaid_have_every_box_and_arrow(graph):
    placed, text = layout(graph), dot(graph)
    assert len(re.findall(r"^  n\d+ \[label=", text, re.MULTILINE)) == len(placed.boxes)
    assert len(re.findall(r"^  n\d+ -> n\d+ \[label=", text, re.MULTILINE)) == len(placed.arrows)
    assert f"rankdir={'TB' if placed.downward else 'LR'};" in text
    assert mermaid(graph).startswith(f"flowchart {'TB' if placed.downward else 'LR'}\n")
    for line in text.splitlines():
        assert len(re.findall(r'(?<!\\)(?:\\\\)*"', line)) % 2 == 0
    text = mermaid(graph)
    assert len(re.findall(r"^  n\d+[\[(]", text, re.MULTILINE)) == len(placed.boxes)
    assert len(re.findall(r'^  n\d+ -->\|"[^"|]*"\| n\d+$', text, re.MULTILINE)) == len(placed.arrows)


def pixels(data):
    """A PNG's size, and its bytes unpacked: each chunk's checksum is verified on the way."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, found = 8, {}
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        found[kind] = found.get(kind, b"") + body
        at += 12 + length
    return struct.unpack(">II", found[b"IHDR"][:8]), zlib.decompress(found[b"IDAT"])


def test_png_has_the_size_of_the_layout_and_ink_on_it(graph):
    pytest.importorskip("matplotlib", reason="a .png is drawn by matplotlib: pip install '.[draw]'")
    (width, height), raw = pixels(png(graph))
    placed = layout(graph)
    assert width / height == pytest.approx(placed.width / placed.height, rel=0.02)  # whole pixels
    assert len(set(raw)) > 10


def test_png_without_matplotlib_is_a_clear_error(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"drawn by matplotlib, which is not installed: pip install 'jaxgrad\[draw\]'"):
        save(of_neuron(), tmp_path / "a.png")
    assert os.listdir(tmp_path) == []


# Files


@pytest.mark.parametrize("ending", [ending for ending in WRITERS if ending != ".png"])
def test_save_writes_by_the_ending(ending, tmp_path):
    found = ledger(neuron.forward)(jnp.array([1.0, 2.0]), jnp.array([0.5, -0.3, 0.1]))
    path = tmp_path / f"graph{ending.upper()}"
    path.write_text("old")
    found.save(path)
    assert path.read_text(encoding="utf-8") == WRITERS[ending](found.graph)
    assert os.listdir(tmp_path) == [path.name]
    assert not hasattr(found, "_repr_svg_")
    assert found._repr_html_() == inline(found.graph)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("graph.gif", r'graph.gif ends in ".gif"; expected a path that ends in .svg, .png, .dot, .mmd, .html, .json'),
        ("graph", r"graph has no ending; expected a path that ends in"),
        ("none/graph.svg", r"graph.svg cannot be written: No such file or directory"),
        ("folder.svg", r"folder.svg cannot be written: Is a directory"),
    ],
)
def test_what_cannot_be_saved_leaves_nothing(name, text, tmp_path):
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(InputError, match=text):
        save(of_neuron(), tmp_path / name)
    assert os.listdir(tmp_path) == ["folder.svg"]


def test_a_full_disk_leaves_the_old_file(monkeypatch, tmp_path):
    path = tmp_path / "graph.svg"
    path.write_text("old")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        save(of_neuron(), path)
    assert os.listdir(tmp_path) == ["graph.svg"]
    assert path.read_text() == "old"


# The page, in a browser

SHOWN = """
const shown = e => !e.classList.contains("hide");
return {
  values: [...document.querySelectorAll("g.node .value")].filter(shown).length,
  grads: [...document.querySelectorAll("g.node .grad")].filter(shown).map(e => e.textContent),
  factors: [...document.querySelectorAll("g.label")].filter(shown).length,
  says: document.getElementById("says").textContent,
  count: document.getElementById("count").textContent,
};
"""


@pytest.fixture(scope="module")
def chromium():
    if browser.why_none():
        pytest.skip(browser.why_none())
    with browser.browser() as found:
        yield found


@pytest.fixture
def page(chromium, tmp_path):
    def opened(graph):
        save(graph, tmp_path / "page.html")
        chromium.open(tmp_path / "page.html")
        return chromium

    return opened


def test_the_page_starts_at_the_first_step_and_shows_everything_at_the_last(page):
    window = page(of_neuron())
    shown = window.run(SHOWN)
    assert (shown["values"], len(shown["grads"]), shown["factors"], shown["count"]) == (0, 0, 0, "0 / 18")
    window.press("End")
    shown = window.run(SHOWN)
    assert (shown["values"], len(shown["grads"]), shown["factors"], shown["count"]) == (9, 9, 8, "18 / 18")
    assert window.run('return document.querySelector("g.now").dataset.name') == "x0"


def test_the_current_box_is_in_sight(page):
    window = page(chain(200))
    window.press("Home", *["ArrowRight"] * 10)
    left, top, right, bottom = window.run(
        'const r = document.querySelector("g.now rect").getBoundingClientRect();'
        "return [r.left, r.top, r.right, r.bottom];"
    )
    width, height = window.run("return [window.innerWidth, window.innerHeight]")
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_the_page_fits_a_phone(tmp_path):
    if browser.why_none():
        pytest.skip(browser.why_none())
    save(of_neuron(), tmp_path / "page.html")
    with browser.browser("--window-size=500,844") as window:
        window.open(tmp_path / "page.html")
        window.phone(390, 844)
        assert window.run("return window.innerWidth") == 390
        assert window.run("return document.documentElement.scrollWidth") <= 390
        sizes = window.run(
            'return [...document.querySelectorAll("button, input")].map(b => b.getBoundingClientRect())'
            ".map(r => [r.width, r.height]);"
        )
        assert all(width >= 44 and height >= 44 for width, height in sizes)


def test_the_page_steps_forward_through_values_and_back_through_gradients(page):
    window = page(of_neuron())
    window.press("Home")
    seen = [window.run(SHOWN)]
    for _ in range(18):
        window.press("ArrowRight")
        seen.append(window.run(SHOWN))
    assert [shown["values"] for shown in seen] == [*range(10), *[9] * 9]
    assert [len(shown["grads"]) for shown in seen] == [*[0] * 10, *range(1, 10)]
    assert seen[0]["says"].startswith("Nothing is computed yet.")
    assert seen[6]["says"] == "z = w0*x0 + w1*x1 + w2 = -2.235e-08\ncomputed from x0, x1, w0, w1, w2"
    assert [shown["grads"][0] for shown in seen[10:14]] == [
        "df/df = 1", "df/dh = -0.25", "df/dk = -0.25", "df/dz = 0.25"
    ]  # fmt: skip
    assert seen[13]["says"].splitlines()[0] == "df/dz = ∂f/∂h · ∂h/∂k · ∂k/∂z = -0.25 · 1 · -1 = 0.25"
    assert seen[13]["says"].endswith("∂k/∂z = -exp(-z) = -1")
    window.press("ArrowLeft", "ArrowLeft")
    assert window.run(SHOWN) == seen[16]
    window.press("End")
    assert window.run(SHOWN) == seen[18]


def test_the_buttons_and_the_slider_step_too(page):
    window = page(of_neuron())
    window.run('document.getElementById("first").click(); document.getElementById("next").click();')
    assert window.run(SHOWN)["count"] == "1 / 18"
    window.run('const s = document.getElementById("at"); s.value = 7; s.dispatchEvent(new Event("input"));')
    assert window.run(SHOWN)["values"] == 7
    window.run('document.getElementById("back").click();')
    assert window.run(SHOWN)["values"] == 6


def test_a_folded_box_tells_every_value_and_gradient_in_it(page):
    window = page(chain(200))
    window.press("Home", *["ArrowRight"] * 8)
    says = window.run(SHOWN)["says"]
    assert says.startswith("192 x h: h4 .. h195\nh4 = 7, h5 = 8, ")
    assert says.count(" = ") == 192
    window.press("End", *["ArrowLeft"] * 7)
    assert window.run(SHOWN)["says"].endswith(", dh199/dh5 = -8, dh199/dh4 = -7")


FACTOR = "∂f/∂h = -1/h**2 = -0.25   \nits share of df/dh: df/df · ∂f/∂h = 1 · -0.25 = -0.25"


def test_pointing_at_an_arrow_shows_its_factor(page):
    window = page(of_neuron())
    x, y = window.run(
        "const p = document.querySelector('g.edge[data-target=\"f\"] .line'), r = p.getScreenCTM();"
        "const q = p.getPointAtLength(p.getTotalLength() * 0.8).matrixTransform(r); return [q.x, q.y];"
    )
    window.point_at(x, y)
    assert window.run(SHOWN)["says"] == FACTOR


def test_arrows_are_reached_with_the_keyboard(page):
    window = page(of_neuron())
    window.press(*["Tab"] * 6)
    said = []
    for _ in range(8):
        window.press("Tab")
        said.append(window.run(SHOWN)["says"])
    assert said[0].startswith("∂z/∂x0 = w0 = 0.5")
    assert said[-1] == FACTOR


@pytest.mark.parametrize("name", GRAPHS)
def test_the_page_runs_without_an_error_and_inside_its_window(page, name):
    window = page(GRAPHS[name]())
    window.press("Home", "ArrowRight", "End")
    assert window.call("POST", "/se/log", {"type": "browser"}) == []
    assert window.run("return document.documentElement.scrollWidth <= window.innerWidth")


def test_text_stays_inside_its_box(page):
    over = page(forked()).run(
        'return [...document.querySelectorAll("g.node")].filter(g => { const b = g.querySelector("rect").getBBox();'
        'return [...g.querySelectorAll("text")].some(t => t.getBBox().width > b.width - 4); }).map(g => g.dataset.name)'
    )
    assert over == []


@pytest.mark.parametrize(("scheme", "dark"), [(0, True), (1, False)])
def test_it_is_legible_in_light_and_in_dark(scheme, dark, tmp_path):
    if browser.why_none():
        pytest.skip(browser.why_none())
    save(of_neuron(), tmp_path / "page.html")
    with browser.browser(f"--blink-settings=preferredColorScheme={scheme}") as window:
        window.open(tmp_path / "page.html")
        colors = window.run(
            "const fill = s => getComputedStyle(document.querySelector(s)).fill;"
            'return [".page", ".box", ".value", ".grad", ".factor"].map(fill);'
        )
    page_, box, *inks = (luminance(color) for color in colors)
    assert bool(page_ < 0.1) is dark
    for ink in inks:
        for ground in (page_, box):
            high, low = max(ink, ground), min(ink, ground)
            assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG 2.1, 1.4.3


def luminance(color):
    """Relative luminance, of "rgb(r, g, b)": https://www.w3.org/TR/WCAG21/#dfn-relative-luminance."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


def test_what_leads_nowhere_stands_aside_with_the_output():
    found = ledger(lambda x: (tag(x * 2, "dead"), tag(jnp.sin(tag(x * 3, "a")), "y"))[1])(1.0)
    boxes = {box.name: box for box in layout(found.graph).boxes}
    assert abs(boxes["dead"].x - boxes["y"].x) < 1
    assert boxes["x"].x < boxes["a"].x < boxes["y"].x
