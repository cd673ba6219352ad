// The field of notebook 09 that one draws into: ink on a square of SIZE x SIZE pixels.
// Shared with Python: value, SIZE * SIZE bytes of ink, 0 to 255, row by row; and seen,
// a number that Python raises when it has read them, so that the next may follow.
const SIZE = 112; // 4 x 28
const PEN = 10; // width of the stroke, in the same pixels
const STEP = 4; // the way of the cursor for one arrow key

function render({ model, el }) {
  el.innerHTML = `
    <style>
      .field { position: relative; width: 280px; height: 280px; margin: 4px; }
      .field canvas { width: 280px; height: 280px; background: white; cursor: crosshair;
        border: 1px solid black; box-sizing: border-box; touch-action: none; }
      .field canvas:focus { outline: 3px solid black; }
      .field span { position: absolute; width: 18px; height: 18px; margin: -11px;
        border: 2px dashed black; border-radius: 50%; pointer-events: none; }
      .field span.down { border: 4px double black; }
      .field canvas:not(:focus) + span { display: none; }
    </style>
    <div class="field"><canvas width="${SIZE}" height="${SIZE}" tabindex="0"
      role="application" data-lm-suppress-shortcuts="true"></canvas><span></span></div>
    <div aria-live="polite" style="width: 280px; line-height: 1.3"></div>`;
  const canvas = el.querySelector("canvas");
  const ring = el.querySelector("span");
  const line = el.querySelector("[aria-live]");
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(pen, { lineWidth: PEN, lineCap: "round", lineJoin: "round" });
  let x = SIZE / 2, y = SIZE / 2, down = false, dirty = false, waiting = false;

  function place(newX, newY) { // moves the pen, and draws if it is down
    const inside = (v) => Math.min(Math.max(v, 0), SIZE - 1);
    const from = [x, y];
    [x, y] = [inside(newX), inside(newY)];
    ring.style.left = `${(x * 280) / SIZE}px`;
    ring.style.top = `${(y * 280) / SIZE}px`;
    if (!down) return;
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(x + 0.1, y); // a little further, so that a dot is drawn too
    pen.stroke();
    send();
  }
  function lower(isDown) {
    down = isDown;
    ring.className = down ? "down" : "";
    line.textContent = `Pen ${down ? "down" : "up"}. Keys: arrows move, space lowers `
      + "or lifts the pen, Delete clears.";
    place(x, y);
  }
  function send() { // one drawing at a time is with Python; the latest goes next
    dirty = waiting;
    if (waiting) return;
    const { data } = pen.getImageData(0, 0, SIZE, SIZE);
    const ink = Uint8Array.from({ length: SIZE * SIZE }, (_, i) => data[4 * i + 3]);
    const old = model.get("value");
    if (ink.every((v, i) => v === old.getUint8(i))) return; // Python would not answer
    waiting = true;
    model.set("value", new DataView(ink.buffer));
    model.save_changes();
  }
  function show() { // what Python has put there, unless it is our own drawing
    const ink = model.get("value");
    if (waiting || ink.byteLength !== SIZE * SIZE) return;
    const picture = pen.createImageData(SIZE, SIZE);
    for (let i = 0; i < SIZE * SIZE; i++) picture.data[4 * i + 3] = ink.getUint8(i);
    pen.putImageData(picture, 0, 0);
  }
  function answered() {
    waiting = false;
    if (dirty) send();
  }
  function clear() {
    pen.clearRect(0, 0, SIZE, SIZE);
    send();
  }

  const at = (e) => [(e.offsetX * SIZE) / 280, (e.offsetY * SIZE) / 280];
  canvas.onpointerdown = (e) => {
    canvas.setPointerCapture(e.pointerId);
    [x, y] = at(e);
    lower(true);
  };
  canvas.onpointermove = (e) => { if (e.buttons) place(...at(e)); };
  canvas.onpointerup = canvas.onpointercancel = () => lower(false);
  const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP],
    ArrowDown: [0, STEP] };
  canvas.onkeydown = (e) => {
    if (e.key in moves) place(x + moves[e.key][0], y + moves[e.key][1]);
    else if (e.key === " ") lower(!down);
    else if (e.key === "Delete" || e.key === "Backspace") clear();
    else return;
    e.preventDefault();
    e.stopPropagation();
  };
  canvas.setAttribute("aria-label", "Field to draw a digit with the mouse, a finger, or "
    + "keys: arrows move the pen, space lowers or lifts it, Delete clears.");
  model.on("change:value", show);
  model.on("change:seen", answered);
  lower(false);
  show();
  return () => {
    model.off("change:value", show);
    model.off("change:seen", answered);
  };
}

export default { render };
