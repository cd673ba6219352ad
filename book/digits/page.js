// The page of digits: what is drawn goes through prepareDigit and all networks.

(() => {
  const find = (selector) => document.querySelector(selector);
  const names = Object.keys(mnistq.nets);
  let asked = false, saying = null;

  for (const name of names) { // a row for each network
    const bars = Array.from({ length: 10 }, (_, d) => `<span><i></i>${d}</span>`).join("");
    const { download, right } = digitFacts.networks[name];
    find("tbody").insertAdjacentHTML("beforeend", `<tr data-net="${name}">
      <th scope="row">${name.replace("_", " ")}</th><td class="answer"></td>
      <td class="scores"><div class="bars" aria-hidden="true">${bars}</div>
        <span class="hidden"></span></td>
      <td class="more">${Math.round(download / 1000)} kB</td>
      <td class="more time"></td>
      <td class="more">${(right / 100).toFixed(2)} % right</td></tr>`);
  }

  function show(name, scores, ms) {
    const row = find(`tr[data-net="${name}"]`);
    const best = scores ? scores.indexOf(Math.max(...scores)) : -1;
    row.querySelector(".answer").textContent = scores ? best : "-";
    row.querySelectorAll(".bars span").forEach((bar, digit) => {
      bar.className = digit === best ? "best" : "";
      bar.firstChild.style.height = `${scores ? (scores[digit] * 40) / 255 : 0}px`;
    });
    row.querySelector(".scores .hidden").textContent =
      scores ? [...scores].map((score, digit) => `${digit}: ${score}`).join(", ") : "";
    row.querySelector(".time").textContent = scores ? `${ms.toFixed(1)} ms` : "";
    return `${name.replace("_", " ")} reads ${best}`;
  }

  function read() { // what is in the field, or nothing of an empty one
    asked = false;
    const pixels = prepareDigit(field.ink(), field.SIZE);
    const empty = pixels.every((value) => value === 0);
    const said = names.map((name) => {
      if (empty) return show(name, null);
      const net = mnistq.nets[name], start = performance.now();
      const codes = pixels.map((pixel) => net.pixelToCode[pixel]);
      const scores = mnistq.run(net, codes).at(-1);
      return show(name, scores, performance.now() - start);
    });
    clearTimeout(saying); // to a screen reader, when the hand rests
    saying = setTimeout(() => {
      find("[role=status]").textContent =
        empty ? "The field is empty." : `${said.join(", ")}.`;
    }, 600);
  }

  const field = drawingField(find("#field"), () => { // once for each new frame
    if (!asked) requestAnimationFrame(read);
    asked = true;
  });
  digitFacts.examples.forEach((picture, digit) => {
    const button = document.createElement("button");
    button.textContent = digit;
    button.setAttribute("aria-label", `A ${digit} from the test set`);
    button.onclick = () => {
      const small = Uint8Array.from(atob(picture), (c) => c.charCodeAt(0));
      const times = field.SIZE / 28;
      field.put(Uint8Array.from({ length: field.SIZE ** 2 }, (_, i) => {
        const [y, x] = [Math.floor(i / field.SIZE), i % field.SIZE];
        return small[Math.floor(y / times) * 28 + Math.floor(x / times)];
      }));
    };
    find(".examples").append(button);
  });
  read();
})();
