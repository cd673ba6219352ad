// The field of field.js as an anywidget; mnistq/playground.py puts both into one text.
// The drawing belongs to the page: it is sent whole, one at a time, the latest last.
// What Python puts there is drawn, and so sent back, like anything else.

function render({ model, el }) {
  let waiting = false, sent = null;

  function send() {
    if (waiting) return;
    const ink = field.ink();
    if (sent && ink.every((value, i) => value === sent[i])) return;
    [waiting, sent] = [true, ink];
    model.send({ kind: "drawn" }, undefined, [ink.buffer]);
  }
  function answered({ kind }) { // Python has read one: what was drawn since follows
    if (kind !== "read") return;
    waiting = false;
    send();
  }
  function shown() {
    const ink = model.get("value");
    sent = null;
    field.put(new Uint8Array(ink.buffer, ink.byteOffset, ink.byteLength));
  }
  const field = globalThis.drawingField(el, () => send());
  model.on("msg:custom", answered);
  model.on("change:puts", shown);
  if (model.get("value").byteLength) shown();
  return () => {
    model.off("msg:custom", answered);
    model.off("change:puts", shown);
  };
}

export default { render };
