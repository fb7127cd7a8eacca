"""What a reader of report.html does in a browser: reads it from top to bottom, and uses every control."""

from __future__ import annotations

from typing import Any

from browser import Page

READY = "document.documentElement.dataset.ready === 'yes'"
#: The sections that the script fills.
PLOTS = ("leaderboard", "matrix", "classes", "calibration", "curves")
VIEW = "document.querySelector('.view:not([hidden])')"


def read_report(page: Page, address: str) -> None:
    """Open the report and scroll to its end: every plot is drawn and every picture of the galleries is there."""
    page.open(address)
    page.wait_for(READY)
    for name in PLOTS:
        find(page, f"[data-plot={name}]", "scrollIntoView()")
        svgs = f"[...{VIEW}.querySelectorAll('[data-plot={name}] svg')]"
        page.wait_for(f"{svgs}.some(svg => svg.getBoundingClientRect().width > 100)")
    page.evaluate("report.drawAll()")
    broken = f"[...{VIEW}.querySelectorAll('.figures img')].filter(e => e.complete && !e.naturalWidth).length"
    assert page.wait_for(f"[...{VIEW}.querySelectorAll('.figures img')].every(e => e.complete)")
    assert page.evaluate(broken) == 0


def find(page: Page, selector: str, then: str) -> Any:
    """Return what an expression after the dot gives of an element of the view."""
    return page.evaluate(f"{VIEW}.querySelector({selector!r}).{then}")


def choose(page: Page, selector: str, index: int) -> str:
    """Choose an entry of a list, as a reader does, and return its text."""
    page.evaluate(
        f"""(() => {{ const list = {VIEW}.querySelector({selector!r}); list.selectedIndex = {index};
            list.dispatchEvent(new Event('change', {{ bubbles: true }})); }})()"""
    )
    return str(find(page, selector, f"options[{index}].text"))


def use_every_control(page: Page, address: str) -> None:
    """Use each kind of control once; each must change what is shown."""
    read_report(page, address)
    sort_a_table(page)
    choose_pictures(page)
    choose_runs(page)
    choose_what_is_drawn(page)
    point_at_a_plot(page)
    change_looks(page)


def sort_a_table(page: Page) -> None:
    """Sort the cost of the runs by the first column, down and up."""
    table = "[data-section=cost] table"
    button = f"{table} thead button"
    orders = []
    for direction in ("ascending", "descending"):
        find(page, button, "click()")
        assert find(page, f"{table} th", "getAttribute('aria-sort')") == direction
        rows = page.evaluate(
            f"[...{VIEW}.querySelectorAll('{table} tbody tr')].map(row => row.cells[0].innerText.trim())"
        )
        orders.append(rows)
    assert sorted(orders[0]) == sorted(orders[1]) == orders[0], orders


def choose_pictures(page: Page) -> None:
    """Choose a cell of the matrix by the mouse, a row of the table and two lists: the same pictures come."""
    find(page, "[data-plot=matrix]", "scrollIntoView({block: 'center'})")
    wrong = page.evaluate("report.run().matrix.filter(([a, b]) => a !== b).sort((a, b) => b[2] - a[2])[0] ?? null")
    cell = wrong or page.evaluate("report.run().matrix[0]")
    text = f"{VIEW}.querySelector('[data-text=cell]').innerText"
    choose(page, "[data-cell=label]", cell[0])
    choose(page, "[data-cell=predicted]", cell[1])
    assert f"{cell[2]} " in page.evaluate(text)
    choose(page, "[data-cell=label]", (cell[0] + 1) % 2)
    before = page.evaluate(text)
    box = page.evaluate(
        f"""(() => {{ const cells = [...{VIEW}.querySelectorAll('[data-plot=matrix] rect.hit')];
            const box = cells[0].getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2]; }})()"""
    )
    page.move_to(*box, click=True)
    page.wait_for(f"{text} !== {before!r} || {VIEW}.querySelectorAll('[data-gallery=cell] figure').length > 0")
    if wrong:
        find(page, "[data-table=confusions] button.link", "click()")
        assert f"{wrong[2]} " in page.evaluate(text)
        assert page.evaluate(f"{VIEW}.querySelectorAll('[data-gallery=cell] img').length") > 0


def choose_runs(page: Page) -> None:
    """Choose each run by the lists, and an experiment by its name in the leaderboard."""
    for field in ("experiment", "seed"):
        count = find(page, f"[data-run={field}]", "options.length")
        value = choose(page, f"[data-run={field}]", count - 1)
        assert str(page.evaluate(f"report.run().{field}")) == value
    find(page, "[data-pick]", "click()")
    assert page.evaluate("report.run().experiment") == find(page, "[data-pick]", "dataset.pick")
    page.evaluate("report.drawAll()")
    title = page.evaluate("report.title(report.run())")
    assert title in find(page, "[data-text=errors]", "innerText")


def choose_what_is_drawn(page: Page) -> None:
    """Choose order and number of the classes, and what the curves show."""
    for choice, plot in (("order", "classes"), ("many", "classes"), ("curve", "curves")):
        for index in range(find(page, f"[data-choice={choice}]", "options.length")):
            page.evaluate(f"window.drawn = {VIEW}.querySelector('[data-plot={plot}] svg')")
            choose(page, f"[data-choice={choice}]", index)
            assert page.evaluate(f"{VIEW}.querySelector('[data-plot={plot}] svg') !== window.drawn")


def point_at_a_plot(page: Page) -> None:
    """Point at the curves: what lies there is told."""
    find(page, "[data-plot=curves]", "scrollIntoView({block: 'center'})")
    box = page.evaluate(
        f"""(() => {{ const dots = {VIEW}.querySelectorAll('[data-plot=curves] [data-mark=dot] circle');
            const box = dots[dots.length - 1].getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2]; }})()"""
    )
    page.move_to(box[0] - 3, box[1])
    page.move_to(*box)
    page.wait_for(
        f"{VIEW}.querySelector('[data-plot=curves]').textContent.includes(report.title(report.data.runs.at(-1)))"
    )


def change_looks(page: Page) -> None:
    """Change light to dark and back, and the language twice."""
    scheme = "getComputedStyle(document.documentElement).colorScheme"
    before = page.evaluate(scheme)
    find(page, "[data-theme-button]", "click()")
    assert page.evaluate(scheme) != before
    find(page, "[data-theme-button]", "click()")
    language = page.evaluate("document.documentElement.lang")
    for _ in range(2):
        find(page, "[data-speak]", "click()")
        assert page.evaluate("document.documentElement.lang") != language
        language = page.evaluate("document.documentElement.lang")
        page.evaluate("report.drawAll()")
        assert page.evaluate(f"{VIEW}.querySelectorAll('.plot svg').length") >= len(PLOTS)
