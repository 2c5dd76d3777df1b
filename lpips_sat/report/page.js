
"use strict";
(() => {
  const tools = document.querySelector(".tools");
  if (!tools) return;
  const cases = [...document.querySelectorAll(".case")];
  const views = [...document.querySelectorAll(".view:not(.none)")];
  const select = tools.querySelector("select");
  const MAX = 16;
  // One zoom for all panels: scale, and the point at the top left as a share of the image.
  let scale = 1, left = 0, top = 0;

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  function draw() {
    left = clamp(left, 0, 1 - 1 / scale);
    top = clamp(top, 0, 1 - 1 / scale);
    for (const view of views) {
      const image = view.firstElementChild;
      image.style.transform =
        `scale(${scale}) translate(${-100 * left}%, ${-100 * top}%)`;
      view.classList.toggle("moved", scale > 1);
    }
    tools.querySelector("output").textContent = `${Math.round(scale * 10) / 10}×`;
  }

  // Zoom by a factor (0: back to the whole), keeping the point (x, y) of the view where it is.
  function zoom(factor, x = 0.5, y = 0.5) {
    const before = scale;
    scale = factor ? clamp(scale * factor, 1, MAX) : 1;
    left += x / before - x / scale;
    top += y / before - y / scale;
    draw();
  }

  function place(view, event) {
    const box = view.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  function move(view, dx, dy) {
    const box = view.getBoundingClientRect();
    left -= dx / box.width / scale;
    top -= dy / box.height / scale;
    draw();
  }

  for (const view of views) {
    const fingers = new Map();
    const spread = () => {
      const [a, b] = [...fingers.values()];
      return Math.hypot(a[0] - b[0], a[1] - b[1]);
    };
    view.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (scale > 1 || event.pointerType === "mouse") view.setPointerCapture(event.pointerId);
    });
    view.addEventListener("pointermove", (event) => {
      const last = fingers.get(event.pointerId);
      if (!last) return;
      const before = fingers.size === 2 ? spread() : 0;
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (fingers.size === 2) zoom(spread() / Math.max(before, 1), ...place(view, event));
      else move(view, event.clientX - last[0], event.clientY - last[1]);
    });
    for (const end of ["pointerup", "pointercancel"])
      view.addEventListener(end, (event) => fingers.delete(event.pointerId));
    view.addEventListener("dblclick", (event) => zoom(scale < MAX ? 2 : 0, ...place(view, event)));
    view.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page
      event.preventDefault();
      zoom(2 ** (-event.deltaY / 200), ...place(view, event));
    }, { passive: false });
    view.addEventListener("keydown", (event) => {
      const box = view.getBoundingClientRect();
      const step = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      const factor = { "+": 2, "=": 2, "-": 0.5, 0: 0 }[event.key];
      if (step && scale > 1) move(view, step[0] * box.width / 8, step[1] * box.height / 8);
      else if (factor !== undefined) zoom(factor);
      else return;
      event.preventDefault();
    });
  }

  function show(id) {
    if (!cases.some((item) => item.id === id)) return;
    for (const item of cases) item.hidden = item.id !== id;
    select.value = id;
  }

  for (const button of tools.querySelectorAll("[data-zoom]"))
    button.addEventListener("click", () => zoom(Number(button.dataset.zoom)));
  for (const button of tools.querySelectorAll("[data-step]"))
    button.addEventListener("click", () => {
      const now = cases.findIndex((item) => !item.hidden);
      show(cases[(now + Number(button.dataset.step) + cases.length) % cases.length].id);
    });
  select.addEventListener("change", () => show(select.value));

  // A link leads to a case that may be hidden: show it first, then go there.
  function follow() {
    const id = location.hash.slice(1);
    show(id);
    if (id) document.getElementById(id)?.scrollIntoView();
  }
  addEventListener("hashchange", follow);
  tools.hidden = false;
  show(cases[0].id);
  follow();
})();
