// Moves the recorded panels: finds the picture and the text of each setting.
// player.py writes their HTML and, as JSON, what was recorded.
function play(panel) {
  const { first, files, texts, shots, folder, steps } =
    JSON.parse(panel.querySelector("script").textContent);
  const controls = [...panel.querySelectorAll("input, select")];
  const [text, image] = [panel.querySelector("p"), panel.querySelector("img")];

  const place = (control) =>
    control.type === "checkbox" ? Number(control.checked)
      : control.selectedIndex ?? Number(control.value);

  function put(control, number, to) {
    if (control.type === "checkbox") control.checked = Boolean(to);
    else if (control.type === "range") {
      control.value = to;
      control.setAttribute("aria-valuetext", steps[number][to]);
      control.nextElementSibling.value = steps[number][to];
    } else control.selectedIndex = to;
  }

  function move(moved) {
    let setting = controls.map(place);
    if (!(setting in shots)) // it was recorded alone
      setting = first.map((to, number) => number === moved ? setting[number] : to);
    controls.forEach((control, number) => put(control, number, setting[number]));
    const [file, said] = shots[setting];
    image.src = `${folder}/${files[file]}`;
    text.textContent = image.alt = texts[said];
  }

  controls.forEach((control, number) => {
    put(control, number, first[number]); // a browser may keep what it was
    control.addEventListener("input", () => move(number));
  });
}

// What is near the window has its pictures fetched before it is moved.
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    const { files, folder } = JSON.parse(target.querySelector("script").textContent);
    for (const file of files.slice(0, 80)) new Image().src = `${folder}/${file}`;
  }
}, { rootMargin: "200px" });

addEventListener("DOMContentLoaded", () => {
  for (const panel of document.querySelectorAll("figure.panel")) {
    play(panel);
    near.observe(panel);
  }
});
