// Shows a point's own text beside the pointer. Without it the page is whole: the figures stand in the tables too.
document.querySelectorAll("figure").forEach((figure) => {
  const points = [...figure.querySelectorAll("[data-say]")];
  if (!points.length) return;
  const say = document.createElement("div");
  say.id = "say";
  say.hidden = true;
  figure.append(say);
  let lit = null;
  const hide = () => { say.hidden = true; if (lit) lit.classList.remove("on"); lit = null; };
  figure.addEventListener("pointerleave", hide);
  figure.addEventListener("pointermove", (event) => {
    let best = null, near = 40;
    for (const point of points) {
      const box = point.getBoundingClientRect();
      if (!box.width) continue;  // of the drawing that is not shown
      const away = Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
      if (away < near) { near = away; best = point; }
    }
    if (!best) return hide();
    if (lit) lit.classList.remove("on");
    lit = best;
    lit.classList.add("on");
    const frame = figure.getBoundingClientRect(), box = best.getBoundingClientRect();
    say.textContent = best.dataset.say;
    say.hidden = false;
    const half = say.offsetWidth / 2;
    const x = box.x + box.width / 2 - frame.x;
    say.style.left = Math.min(Math.max(x, half), frame.width - half) + "px";
    say.style.top = box.y - frame.y + "px";
  });
});
