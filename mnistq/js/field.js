// A field to draw a digit in, with the mouse, a finger or keys; pen width, undo, clear.
// Used by the page of digits and, through widget.js, by notebook 13.

globalThis.drawingField = (place, changed) => { // changed: called after each change
  const SIZE = 112; // pixels, 4 x 28
  const STEP = 4; // the way of the pen for one arrow key
  place.innerHTML = `
    <style>
      .field { width: 280px; max-width: 100%; box-sizing: border-box; color: #222; font: 14px sans-serif; }
      .field .paper { position: relative; aspect-ratio: 1; }
      .field canvas { width: 100%; height: 100%; background: white; cursor: crosshair;
        border: 1px solid #555; box-sizing: border-box; touch-action: none; }
      .field canvas:focus-visible { outline: 3px solid #0b62a4; }
      .field .pen { position: absolute; width: 18px; height: 18px; margin: -11px;
        border: 2px dashed #222; border-radius: 50%; pointer-events: none; }
      .field .pen.down { border: 4px double #222; }
      .field canvas:not(:focus-visible) + .pen { display: none; }
      .field .tools { display: flex; gap: 8px; align-items: center; margin-top: 6px; }
      .field button { min-height: 36px; padding: 0 12px; font: inherit; color: #222;
        background: #eee; border: 1px solid #888; border-radius: 4px; cursor: pointer; }
      .field label { display: flex; flex: 1; gap: 6px; align-items: center;
        padding: 6px; background: #eee; border-radius: 4px; min-width: 0; }
      .field input { flex: 1; width: 0; min-width: 0; }
      .field .said { position: absolute; width: 1px; height: 1px; overflow: hidden;
        clip-path: inset(50%); }
    </style>
    <div class="field">
      <div class="paper"><canvas width="${SIZE}" height="${SIZE}" tabindex="0"
        role="application" data-lm-suppress-shortcuts="true" aria-label="Field to draw
        a digit with the mouse, a finger or keys: arrows move the pen, space lowers or
        lifts it, Backspace undoes a stroke, Delete clears."></canvas>
        <span class="pen"></span></div>
      <div class="tools"><button type="button" class="undo">Undo</button>
        <button type="button" class="clear">Clear</button>
        <label>Pen <input type="range" min="2" max="16" value="6"></label></div>
      <div class="said" aria-live="polite"></div>
    </div>`;
  const find = (selector) => place.querySelector(selector);
  const canvas = find("canvas"), ring = find(".pen"), width = find("input");
  const paper = canvas.getContext("2d", { willReadFrequently: true });
  let strokes = [], x = SIZE / 2, y = SIZE / 2, drawn = null; // the stroke being drawn

  function segment({ pen, points }, end) { // to the point of this number
    Object.assign(paper, { lineWidth: pen, lineCap: "round", lineJoin: "round" });
    paper.beginPath();
    paper.moveTo(...points[Math.max(end - 1, 0)]);
    paper.lineTo(...points[end]);
    paper.stroke();
  }
  function redraw() {
    paper.clearRect(0, 0, SIZE, SIZE);
    for (const stroke of strokes)
      if (stroke.picture) paper.putImageData(stroke.picture, 0, 0);
      else stroke.points.forEach((_, end) => segment(stroke, end));
    changed();
  }
  function move(newX, newY) { // the pen, which draws if it is down
    [x, y] = [newX, newY].map((v) => Math.min(Math.max(v, 0), SIZE));
    ring.style.left = `${(100 * x) / SIZE}%`;
    ring.style.top = `${(100 * y) / SIZE}%`;
    if (!drawn) return;
    drawn.points.push([x, y]);
    segment(drawn, drawn.points.length - 1);
    changed();
  }
  function lower(isDown) {
    drawn = isDown ? { pen: Number(width.value), points: [] } : null;
    if (drawn) strokes.push(drawn);
    ring.className = drawn ? "pen down" : "pen";
    move(x, y);
  }
  function say(text) {
    find(".said").textContent = text;
  }
  function undo() {
    lower(false);
    strokes.pop();
    redraw();
    say("The last stroke is undone.");
  }
  function clear() {
    lower(false);
    strokes = [];
    redraw();
    say("The field is empty.");
  }
  function put(bytes) { // SIZE * SIZE of ink, in place of what is there
    const picture = paper.createImageData(SIZE, SIZE);
    for (let i = 0; i < SIZE * SIZE; i++) picture.data[4 * i + 3] = bytes[i];
    lower(false);
    strokes = [{ picture }];
    redraw();
  }
  function ink() { // SIZE * SIZE bytes, row by row
    const { data } = paper.getImageData(0, 0, SIZE, SIZE);
    return Uint8Array.from({ length: SIZE * SIZE }, (_, i) => data[4 * i + 3]);
  }

  const at = (e) => {
    const box = canvas.getBoundingClientRect();
    return [((e.clientX - box.left) * SIZE) / box.width,
      ((e.clientY - box.top) * SIZE) / box.height];
  };
  let pointer = null; // the one that draws; a second finger does not
  canvas.onpointerdown = (e) => {
    if (e.button !== 0 || pointer !== null) return;
    pointer = e.pointerId;
    canvas.setPointerCapture(pointer);
    lower(false);
    [x, y] = at(e);
    lower(true);
  };
  canvas.onpointermove = (e) => { if (e.pointerId === pointer) move(...at(e)); };
  canvas.onpointerup = canvas.onpointercancel = (e) => {
    if (e.pointerId !== pointer) return;
    pointer = null;
    lower(false);
  };
  const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP],
    ArrowDown: [0, STEP] };
  canvas.onkeydown = (e) => {
    const withCommand = e.ctrlKey || e.metaKey;
    if (e.key in moves) move(x + moves[e.key][0], y + moves[e.key][1]);
    else if (e.key === " ") {
      lower(!drawn);
      say(`Pen ${drawn ? "down" : "up"}.`);
    } else if (e.key === "Backspace" || (withCommand && e.key === "z")) undo();
    else if (e.key === "Delete") clear();
    else return;
    e.preventDefault();
    e.stopPropagation();
  };
  find(".undo").onclick = undo;
  find(".clear").onclick = clear;
  lower(false);
  return { SIZE, put, ink, clear };
};
