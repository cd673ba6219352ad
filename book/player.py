"""The HTML of a recorded panel; static/player.js moves it."""

import html
import json
import math

FIXED = "Recorded: move one control, and the others go back to where they began."
HTML = """<figure class="panel" role="group" aria-label="A figure with controls">
<div class="panel-controls">{controls}</div>
<p class="panel-text" aria-live="polite">{text}</p>
<img src="{folder}/{file}" width="{width}" height="{height}" alt="{text}">
{note}<script type="application/json">{data}</script>
</figure>"""


def control_html(control, place):
    """Return the HTML of one control that stands at the place."""
    label, steps = html.escape(control["label"]), control["steps"]
    if control["kind"] == "switch":
        state = " checked" if place else ""
        return f'<label><input type="checkbox"{state}> {label}</label>'
    if control["kind"] == "choice":
        options = "".join(
            f"<option{' selected' if n == place else ''}>{html.escape(step)}</option>"
            for n, step in enumerate(steps)
        )
        return f"<label>{label} <select>{options}</select></label>"
    step = html.escape(steps[place])
    slider = f'<input type="range" min="0" max="{len(steps) - 1}" value="{place}"'
    slider += f' aria-valuetext="{step}">'
    return f"<label>{label} {slider} <output>{step}</output></label>"


def panel_html(panel, folder):
    """Return a recorded panel as HTML; its pictures lie in folder, as seen from it."""
    controls = "".join(map(control_html, panel["controls"], panel["first"]))
    file, text = panel["shots"][",".join(map(str, panel["first"]))]
    every = math.prod(len(control["steps"]) for control in panel["controls"])
    note = "" if len(panel["shots"]) == every else f'<p class="panel-note">{FIXED}</p>'
    steps = [control["steps"] for control in panel["controls"]]
    data = {key: panel[key] for key in ("first", "files", "texts", "shots")}
    data = json.dumps(data | {"folder": folder, "steps": steps}, ensure_ascii=False)
    width, height = panel["size"]
    return HTML.format(
        controls=controls,
        text=html.escape(panel["texts"][text]),
        folder=folder,
        file=panel["files"][file],
        width=width,
        height=height,
        note=note,
        data=data.replace("<", "\\u003c"),
    )
