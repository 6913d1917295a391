// Without this script all numbers of threads are shown one after another.
const points = [...document.querySelectorAll("[data-point]")];
const threads = [...document.querySelectorAll("[data-threads]")];
const choose = (wanted) => {
  for (const point of points) point.hidden = point.dataset.point !== wanted;
  for (const button of threads) button.ariaPressed = String(button.dataset.threads === wanted);
};
for (const button of threads) button.onclick = () => choose(button.dataset.threads);
if (threads.length) choose(threads.at(-1).dataset.threads);

const lights = [...document.querySelectorAll("[data-highlight]")];
for (const button of lights) {
  button.onclick = () => {
    const on = button.ariaPressed !== "true";
    for (const other of lights) other.ariaPressed = String(on && other === button);
    document.body.classList.toggle("highlighting", on);
    for (const mark of document.querySelectorAll("svg g[data-way]")) {
      mark.classList.toggle("lit", on && mark.dataset.way === button.dataset.highlight);
    }
  };
}
