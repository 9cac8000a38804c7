"""The report: pages that open from disk, escape what they show, and work in a browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip("jinja2", reason="needs the extra `report`")
pytest.importorskip("plotly", reason="needs the extra `report`")

from sfumato.cli.view import Server
from sfumato.records import Figure
from sfumato.report.plots import by_item, side_by_side
from sfumato.report.site import build
from sfumato.stats import item_values
from sfumato.store import Store

MARKUP = "<img src=x onerror=alert(1)>"


RUNS = (
    ("toys/bandit", "--solver", "toys/greedy", "--solver", "toys/trained", "--seeds", "300"),
    ("toys/cart", "--solver", "toys/controller", "--seeds", "3"),
    ("toys/tools", "--solver", "toys/coder", "--runtime", "toys/forgetting", "--seeds", "2"),
    ("toys/coin", "--solver", "toys/belief", "--seeds", "4"),
    ("toys/fault", "--solver", "toys/noop", "-t", "fault=raise"),
)


@pytest.fixture(scope="module")
def made_runs(tmp_path_factory):
    """A store with runs of several shapes, one of them failed; made once."""
    store = tmp_path_factory.mktemp("made") / "store"
    for words in RUNS:
        subprocess.run([sys.executable, "-m", "sfumato", "run", *words, "--store", str(store)], capture_output=True)
    return store


@pytest.fixture
def runs(made_runs, tmp_path):
    """A copy of those runs as this test's store."""
    shutil.copytree(made_runs, tmp_path / "store")


def page(tmp_path, name="index.html"):
    return (tmp_path / "site" / name).read_text()


def run_page(tmp_path, sfumato, task):
    records = map(json.loads, sfumato("status", "--json").stdout.splitlines())
    (run_id,) = [r["run_id"] for r in records if r["spec"]["task"]["name"] == task]
    return page(tmp_path, f"runs/{run_id}.html")


def test_the_site_shows_every_run_and_fetches_nothing(sfumato, tmp_path, runs):
    """Overview, a page a run, and no address outside the folder."""
    sfumato("report", "-o", str(tmp_path / "site"), check=0)
    index = page(tmp_path)
    assert "5 ok" in index
    assert "1 failed" in index
    assert "toys/bandit toys/greedy" in index
    for path in (tmp_path / "site").rglob("*.html"):
        text = path.read_text()
        for address in re.findall(r'(?:src|href)="([^"]+)"', text):
            assert not address.startswith(("http:", "https:", "//")), f"{path.name} fetches {address}"
            if not address.startswith(("#", "data:")):
                assert (path.parent / address.partition("#")[0]).exists(), f"{path.name}: {address} is not there"
    assert "RuntimeError: the task broke down" in run_page(tmp_path, sfumato, "toys/fault")


def test_plugins_contribute_sections_and_a_broken_one_leaves_the_page_standing(sfumato, tmp_path, runs):
    """Plot, playback, table and transcript come from the plugin; an exception becomes a sentence, escaped."""
    sfumato("report", "-o", str(tmp_path / "site"), check=0)
    cart = run_page(tmp_path, sfumato, "toys/cart")
    assert 'class="playback"' in cart
    assert "The cart, seen from the side" in cart
    assert "answer(secret)" in run_page(tmp_path, sfumato, "toys/tools")
    coin = run_page(tmp_path, sfumato, "toys/coin")
    assert "could not be drawn: RuntimeError: &lt;b&gt;cannot&lt;/b&gt; be drawn" in coin


def test_markup_in_names_and_errors_is_shown_as_text(sfumato, tmp_path):
    """A label, an error and a store folder holding HTML."""
    experiment = tmp_path / "x.toml"
    experiment.write_text(
        f'[[task]]\nuse="toys/fault"\nfault="raise"\nlabel="{MARKUP}"\n[[solver]]\nuse="toys/noop"\nlabel="</script>"\n'
    )
    store = tmp_path / "a<b>"
    sfumato("run", str(experiment), "--store", str(store), check=1)
    sfumato("report", "-o", str(tmp_path / "site"), "--store", str(store), check=0)
    for path in (tmp_path / "site").rglob("*.html"):
        assert MARKUP not in path.read_text()
    assert html.escape(MARKUP) in page(tmp_path)


def test_an_empty_store_makes_a_page_that_says_so(sfumato, tmp_path):
    """And how to fill it."""
    (tmp_path / "store").mkdir()
    sfumato("report", "-o", str(tmp_path / "site"), check=0)
    assert "holds no runs yet" in page(tmp_path)


def test_a_folder_that_exists_is_left_alone(sfumato, tmp_path, runs):
    """Without --overwrite, and with it when it is not ours."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    for words in ((), ("--overwrite",)):
        assert "nothing was written" in sfumato("report", "-o", str(tmp_path / "mine"), *words, check=2).stderr
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    sfumato("report", "-o", str(tmp_path / "site"), check=0)
    assert "nothing was written" in sfumato("report", "-o", str(tmp_path / "site"), check=2).stderr
    sfumato("report", "-o", str(tmp_path / "site"), "--overwrite", check=0)


def test_runs_of_a_plugin_that_is_gone_and_damaged_records_are_listed(sfumato, tmp_path, runs):
    """The store outlives the plugin."""
    record = next((tmp_path / "store" / "runs").glob("*/record.json"))
    record.write_text("{")
    sfumato("report", "-o", str(tmp_path / "site"), env={"PYTHONPATH": ""}, check=0)
    index = page(tmp_path)
    assert "1 damaged" in index
    assert "toys/" in index


def test_nan_in_a_figure_does_not_break_the_page(tmp_path):
    """JSON has no NaN; a plot shows a gap."""
    from sfumato.report.site import _json

    json.loads(_json({"y": [1.0, float("nan"), float("inf")]}))
    assert "</script>" not in _json({"a": "</script>"})


def crafted(store, change):
    """Change the record of a finished run of toys/bandit by hand; return its id."""
    for path in sorted((store / "runs").glob("*/record.json")):
        record = json.loads(path.read_text())
        if record["spec"]["task"]["name"] == "toys/bandit":
            change(record)
            path.write_text(json.dumps(record))
            return path.parent.name
    raise AssertionError("no run of toys/bandit")


def test_metrics_that_are_not_numbers_are_shown_and_do_not_break_the_page(sfumato, tmp_path, runs):
    """NaN and infinity, as a figure, as its interval and item by item: a word in the table, a gap in the plot."""

    def spoil(record):
        record["figures"][0].update(value=float("nan"), low=float("nan"), high=float("inf"))

    run_id = crafted(tmp_path / "store", spoil)
    rows = tmp_path / "store" / "runs" / run_id / "rows.jsonl"
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    lines[0]["metrics"][0]["values"][0] = float("nan")
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    sfumato("report", "-o", str(tmp_path / "site"), check=0)
    assert ">nan" in page(tmp_path)
    text = page(tmp_path, f"runs/{run_id}.html")
    assert ">nan" in text
    for plot in re.findall(r'<script type="application/json">(.*?)</script>', text + page(tmp_path), re.S):
        json.loads(plot, parse_constant=lambda word: pytest.fail(f"{word} in a plot"))


def test_of_many_figures_paper_shows_the_first_and_says_so(sfumato, tmp_path, runs):
    """A page is no wider than paper; the screen has all of them, and so has a run's own page."""

    def multiply(record):
        record["figures"] = [{**record["figures"][0], "name": f"figure-{k}"} for k in range(12)]

    run_id = crafted(tmp_path / "store", multiply)
    sfumato("report", "-o", str(tmp_path / "site"), check=0)
    index = page(tmp_path)
    (task,) = re.findall(r'<h2 id="toys/bandit">.*?</table>', index, re.S)
    assert 'class="sortable filterable many"' in task
    assert "the first 9 of " in task
    assert "figure-11" in task
    assert "figure-11" in page(tmp_path, f"runs/{run_id}.html")
    (few,) = re.findall(r'<h2 id="toys/coin">.*?</table>', index, re.S)
    assert "many" not in few


def test_markup_in_a_record_is_shown_as_text_by_view(sfumato, tmp_path, runs):
    """The name of a task, a solver and its plugin, a label, an error, a unit: somebody else may have written the store."""

    def spoil(record):
        record["spec"]["task"]["name"] = f"{MARKUP}/x"
        record["spec"]["solver"]["name"] = f"{MARKUP}/y"
        record["label"] = record["error"] = record["figures"][0]["name"] = record["figures"][0]["unit"] = MARKUP

    run_id = crafted(tmp_path / "store", spoil)
    words = [sys.executable, "-m", "sfumato", "view", "--port", "0", "--store", str(tmp_path / "store")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().strip()
        for path in ("index.html", f"runs/{run_id}.html"):
            served = urllib.request.urlopen(address.replace("index.html", path), timeout=20).read().decode()
            assert MARKUP not in served
            assert html.escape(MARKUP) in served
    finally:
        process.terminate()
        process.wait(20)


def twin(store, run_id, change):
    """Copy a run under another id, with a record changed by hand; return that id."""
    k = len(list((store / "runs").iterdir()))
    new = f"{k:016x}"
    shutil.copytree(store / "runs" / run_id, store / "runs" / new)
    record = json.loads((store / "runs" / new / "record.json").read_text())
    record["run_id"] = new
    change(record)
    (store / "runs" / new / "record.json").write_text(json.dumps(record))
    return new


def made(tmp_path, **options):
    """Build the report of this test's store in this process; return its start page."""
    build(Store(tmp_path / "store"), tmp_path / "site", **options)
    return page(tmp_path)


def parts_of(index, task):
    """Return the tables of a task, each by its caption, and what its plots say."""
    (section,) = re.findall(rf'<h2 id="{task}">.*?</section>', index, re.S)
    tables = re.findall(r"<caption>(.*?)</caption>(.*?)</table>", section, re.S)
    return {html.unescape(caption): rows for caption, rows in tables}, re.findall(r'aria-label="(.*?)"><script', section)


def test_runs_of_two_worlds_are_never_in_one_table_or_plot(tmp_path, runs):
    """Other task settings or another seed are other instances: a table and plots each, under what sets them apart."""
    store = tmp_path / "store"
    run_id = crafted(store, lambda record: None)
    for rounds, seed in ((20, 0), (100, 0), (20, 7)):
        def change(record, rounds=rounds, seed=seed):
            record["spec"]["task"]["settings"]["n_rounds"] = rounds
            record["spec"]["seed"] = seed
        twin(store, run_id, change)
    tables, plots = parts_of(made(tmp_path), "toys/bandit")
    settings = [re.search(r"n_rounds = \d+, seed = \d", caption)[0] for caption in tables]
    assert settings == ["n_rounds = 20, seed = 0", "n_rounds = 20, seed = 7", "n_rounds = 50, seed = 0", "n_rounds = 100, seed = 0"]
    assert [rows.count("<tr>") - 1 for rows in tables.values()] == [1, 1, 2, 1]
    assert all("toys/greedy: " in plot and "toys/trained: " in plot for plot in plots)  # those of the world of two runs
    assert plots
    everything = page(tmp_path).partition("All runs")[2]
    assert "n_rounds = 20, seed = 7" in everything
    assert "n_rounds = 20, seed = 7" in page(tmp_path, f"runs/{twin_id(tmp_path, 20, 7)}.html")


def twin_id(tmp_path, rounds, seed):
    """Return the id of the run with these settings."""
    for path in (tmp_path / "store" / "runs").glob("*/record.json"):
        spec = json.loads(path.read_text())["spec"]
        if spec["task"]["name"] == "toys/bandit" and (spec["task"]["settings"]["n_rounds"], spec["seed"]) == (rounds, seed):
            return path.parent.name
    raise AssertionError(f"no run with {rounds} rounds and seed {seed}")


def test_runs_of_one_name_are_told_apart_by_what_differs(tmp_path, runs):
    """Solver settings, runtime and instances, in table and plot; what is the same for all is left out."""
    store = tmp_path / "store"
    run_id = crafted(store, lambda record: record["spec"]["solver"]["settings"].update(budget=50, kept=1))
    twin(store, run_id, lambda record: record["spec"]["solver"]["settings"].update(budget=500, kept=1))
    name = json.loads((store / "runs" / run_id / "record.json").read_text())["label"]
    tables, plots = parts_of(made(tmp_path), "toys/bandit")
    (rows,) = tables.values()
    assert re.search(rf"{name}</a> <small>budget = 50</small>.*{name}</a> <small>budget = 500</small>", rows, re.S)
    assert "kept" not in rows
    solver = name.partition(" ")[2]
    assert all(f"{solver}, budget = 50: " in plot and f"{solver}, budget = 500: " in plot for plot in plots)
    twin(store, run_id, lambda record: record["spec"].update(instances="300:600"))
    tables, _ = parts_of(made(tmp_path, overwrite=True), "toys/bandit")
    (rows,) = tables.values()
    assert rows.count("instances 0:300") == 3
    assert rows.count("instances 300:600") == 1


def test_a_value_stands_over_its_own_item_and_what_is_missing_is_counted():
    """NaN for items 0 and 2 of six leaves 1, 3, 4, 5 where they are."""
    values = [(0, float("nan")), (1, 10.0), (2, float("inf")), (3, 30.0), (4, 40.0), (5, 50.0)]
    plot = by_item("score", "1", values)
    assert list(zip(plot.figure["data"][0]["x"], plot.figure["data"][0]["y"], strict=True)) == [(k, v) for k, v in values if v == 10 * k]
    assert "2 of 6 not finite" in plot.alt
    assert "not finite" not in by_item("score", "1", values[3:]).alt
    assert "2 of 2 not finite" in by_item("score", "1", [values[0], values[2]]).text


def test_items_are_read_from_the_rows():
    """A batch's values are its items', wherever it begins; one value for a whole batch stands with its first."""
    def row(first, last, values):
        return {"items": [first, last], "metrics": [{"name": "other", "values": [9.0]}, {"name": "score", "values": values}]}

    rows = [row(10, 13, [1.0, 2.0, 3.0]), row(13, 14, [4.0]), row(20, 23, [5.0])]
    assert list(item_values(rows, "score")) == [(10, 1.0), (11, 2.0), (12, 3.0), (13, 4.0), (20, 5.0)]


def figure(name, value, sd=0.0):
    return Figure(name, value, "1", "max", "mean", 10, sd, value - sd, value + sd)


def test_a_run_whose_figure_is_no_number_is_named_beside_the_plot():
    """It has no dot there, and the reader must not think that it did not run."""
    plot = side_by_side("score", [("a", figure("score", 1.0)), ("b<i>", figure("score", float("nan"))), ("c", figure("score", 2.0))])
    assert plot.figure["data"][0]["x"] == [1.0, 2.0]
    assert "not finite: b<i>" in plot.alt


def test_metrics_that_are_the_same_for_all_take_no_plot(tmp_path, runs):
    """They stand in the table; the plots are of what differs."""
    def constant_first(record):
        same = {**record["figures"][0], "value": 0.0, "sd": 0.0, "low": 0.0, "high": 0.0}
        record["figures"] = [{**same, "name": name} for name in ("at_fault", "struck", "late", "lost")] + record["figures"]

    store = tmp_path / "store"
    run_id = crafted(store, constant_first)
    twin(store, run_id, lambda record: record["spec"].update(train_seed=5))
    tables, plots = parts_of(made(tmp_path), "toys/bandit")
    assert plots
    assert not any(plot.startswith(("at_fault", "struck", "late", "lost")) for plot in plots)
    assert "at_fault" in "".join(tables.values())


def test_stale_runs_are_said_to_be_stale(tmp_path, runs):
    """In the overview, in its tables and on the run's page, with the reason, as status says it."""
    run_id = crafted(tmp_path / "store", lambda record: record["code"].update(sfumato_toys="another"))
    index = made(tmp_path)
    assert "1 stale" in index
    assert "Stale, 1 of them: the code of sfumato_toys has changed since (another then" in index
    assert index.count('<span class="status stale">stale</span>') == 2
    assert "Stale: the code of sfumato_toys has changed since" in page(tmp_path, f"runs/{run_id}.html")


def test_pages_of_runs_that_are_gone_are_removed(tmp_path, runs):
    """By --overwrite; what is none of ours stays."""
    made(tmp_path)
    run_id = crafted(tmp_path / "store", lambda record: None)
    shutil.rmtree(tmp_path / "store" / "runs" / run_id)
    (tmp_path / "site" / "runs" / "notes.html").write_text("mine")
    assert (tmp_path / "site" / "runs" / f"{run_id}.html").exists()
    assert run_id not in made(tmp_path, overwrite=True)
    assert not (tmp_path / "site" / "runs" / f"{run_id}.html").exists()
    assert (tmp_path / "site" / "runs" / "notes.html").exists()


def test_a_store_that_is_not_there_is_an_error(sfumato, tmp_path):
    """A mistyped name is no empty store, for report and view alike; the nearest store is named."""
    (tmp_path / "results" / "runs").mkdir(parents=True)
    for words in (("report", "-o", str(tmp_path / "site")), ("view", "--port", "0")):
        said = " ".join(sfumato(*words, "--store", "resluts", check=2).stderr.split())
        assert "there is no store resluts: no such folder. Did you mean 'results'?" in said
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("words", [("--host", "999.1.1.1"), ("--host", "192.0.2.1"), ("--host", "no such host")])
def test_an_address_that_is_not_ours_is_an_error_of_usage(sfumato, tmp_path, words):
    """No traceback: what was asked for, and what may be."""
    (tmp_path / "store").mkdir()
    done = sfumato("view", "--port", "0", *words, check=2)
    assert f"cannot serve at {words[1]}, port 0: " in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_view_answers_to_its_own_address_alone():
    """A name of another site that points here (DNS rebinding) gets no page; numbers cannot be pointed elsewhere."""
    with Server("127.0.0.1", 0, None) as server:
        for host in ("127.0.0.1:8000", "127.0.0.1", "localhost:9", "LOCALHOST", "[::1]:8000"):
            assert server.answers_to(host), host
        for host in ("evil.example:8000", "evil.example", "", "127.0.0.1.evil.example:80", "192.0.2.7:8000", "localhost.evil.example"):
            assert not server.answers_to(host), host
    with Server("0.0.0.0", 0, None) as server:
        assert server.answers_to("192.0.2.7:8000")
        assert server.answers_to(f"{socket.gethostname()}:8000")
        assert not server.answers_to("evil.example:8000")


@pytest.mark.slow
def test_five_hundred_runs_make_a_report_in_half_a_minute(tmp_path, sfumato):
    """Under 25 MB."""
    (one,) = map(json.loads, sfumato("run", "toys/bandit", "--solver", "toys/greedy", "--seeds", "300", "--json").stdout.splitlines())
    store = Store(tmp_path / "store")
    source = store.folder(one["run_id"])
    for k in range(499):
        twin = store.folder(f"{k:016x}")
        shutil.copytree(source, twin)
        record = json.loads((twin / "record.json").read_text())
        record["run_id"] = twin.name
        (twin / "record.json").write_text(json.dumps(record))
    began = time.process_time()
    _, count = build(store, tmp_path / "site")
    assert count == 500
    # Processor time: the claim is about the work, and the machine that runs this test may be shared.
    assert time.process_time() - began < 30
    assert sum(p.stat().st_size for p in (tmp_path / "site").rglob("*") if p.is_file()) < 25e6


def test_view_serves_on_loopback_and_lists_no_folder(sfumato, tmp_path, runs):
    """127.0.0.1 unless told otherwise; no listing; no framing."""
    words = [sys.executable, "-m", "sfumato", "view", "--port", "0", "--store", str(tmp_path / "store")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        answer = urllib.request.urlopen(address, timeout=20)
        assert "Overview" in answer.read().decode()
        assert answer.headers["X-Frame-Options"] == "DENY"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address.replace("index.html", "assets/"), timeout=20)
        for method in ("GET", "HEAD"):
            request = urllib.request.Request(address, headers={"Host": "evil.example"}, method=method)
            with pytest.raises(urllib.error.HTTPError, match="421"):
                urllib.request.urlopen(request, timeout=20)
    finally:
        process.terminate()
        process.wait(20)


# ---------------------------------------------------------------- in a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=6000",
)  # fmt: skip
PROBE = """<script>
addEventListener("load", () => setTimeout(() => {
  const said = {};
  try {
    const table = document.querySelector("table.sortable");
    if (table) {
      const button = table.querySelector("thead th:nth-child(2) button");
      button.click(); button.click();
      said.sort = table.querySelector("thead th:nth-child(2)").getAttribute("aria-sort");
      said.column = [...table.tBodies[0].rows].map((row) => row.cells[1].textContent);
    }
    const field = document.querySelector("input.filter");
    if (field) {
      field.value = "failed"; field.dispatchEvent(new Event("input"));
      const rows = [...document.querySelectorAll("table.filterable")].at(-1).tBodies[0].rows;
      said.shown = [...rows].filter((row) => !row.hidden).length;
    }
    const player = document.querySelector(".playback");
    if (player) {
      player.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
      said.frame = [...player.querySelectorAll(".frame")].findIndex((frame) => !frame.hidden);
      player.querySelector(".play").click();
      said.button = player.querySelector(".play").textContent;
    }
    said.plots = document.querySelectorAll(".plot .main-svg").length;
    document.getElementById("theme").click();
    said.theme = document.documentElement.dataset.theme;
  } catch (error) { said.error = String(error); }
  const out = document.createElement("pre"); out.id = "said"; out.textContent = JSON.stringify(said); document.body.append(out);
}, 1500));
</script></body>"""


def browse(path, tmp_path):
    """Open a page in headless Chromium, use it, and return what the page reports and the console's errors."""
    probe = path.with_name("probe-" + path.name)
    probe.write_text(path.read_text().replace("</body>", PROBE))
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", probe.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    probe.unlink()
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    (said,) = re.findall(r'<pre id="said">(.*?)</pre>', done.stdout, re.S)
    return json.loads(html.unescape(said)), console


@pytest.mark.optional
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
def test_pages_work_in_a_browser(sfumato, tmp_path, runs):
    """No console errors; sorting, filtering, playback, plots and the theme switch work."""
    sfumato("report", "-o", str(tmp_path / "site"), check=0)
    said, console = browse(tmp_path / "site" / "index.html", tmp_path)
    assert console == []
    assert "error" not in said
    assert said["sort"] == "descending"
    assert said["shown"] == 1
    assert said["plots"] > 0
    assert said["theme"] in ("light", "dark")
    records = map(json.loads, sfumato("status", "--json").stdout.splitlines())
    (cart,) = [r["run_id"] for r in records if r["spec"]["task"]["name"] == "toys/cart"]
    said, console = browse(tmp_path / "site" / "runs" / f"{cart}.html", tmp_path)
    assert console == []
    assert said["frame"] == 1
    assert said["button"] == "Pause"
    assert said["plots"] > 0
