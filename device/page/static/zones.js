// Draws the zones and masks of a camera on its picture: by pointer, and by keyboard.
document.addEventListener("DOMContentLoaded", () => {
  "use strict";
  const editor = document.getElementById("editor");
  if (!editor) return;
  const TONES = 4;
  const LEAST = 3;
  const MOST = 64;
  const root = document.body.dataset.root;
  const picture = editor.querySelector(".picture");
  const drawing = picture.querySelector("svg");
  const list = editor.querySelector("ul");
  const status = editor.querySelector('[role="status"]');
  // Zones have names; masks are numbered in their order.
  const shapes = [
    ...JSON.parse(editor.dataset.zones).map((zone) => ({ ...zone, isMask: false })),
    ...JSON.parse(editor.dataset.masks).map((mask) => ({ ...mask, isMask: true })),
  ];
  const zones = () => shapes.filter((shape) => !shape.isMask);
  const masks = () => shapes.filter((shape) => shape.isMask);
  const called = (shape) => (shape.isMask ? `mask ${masks().indexOf(shape) + 1}` : shape.name);
  let seen = editor.dataset.seen;
  let chosen = 0;

  const clamp = (share) => Math.min(1, Math.max(0, Math.round(share * 1000) / 1000));
  const percent = (share) => `${Math.round(100 * share)} %`;
  const say = (text, className = "") => {
    status.textContent = text;
    status.className = `small ${className}`;
  };
  const at = (event) => {
    const box = picture.getBoundingClientRect();
    return [clamp((event.clientX - box.left) / box.width), clamp((event.clientY - box.top) / box.height)];
  };

  const svg = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };

  const drawPolygons = () => {
    drawing.replaceChildren(
      ...shapes.map((shape, number) =>
        svg("polygon", {
          class: `${shape.isMask ? "mask" : `zone tone${number % TONES}`}${number === chosen ? " chosen" : ""}`,
          points: shape.polygon.map((corner) => corner.join(",")).join(" "),
        }),
      ),
    );
  };

  const place = (handle, corner, number, shape) => {
    handle.style.left = `${100 * corner[0]}%`;
    handle.style.top = `${100 * corner[1]}%`;
    handle.setAttribute(
      "aria-label",
      `Corner ${number + 1} of ${called(shape)}: ${percent(corner[0])} from the left, ${percent(corner[1])} from the top`,
    );
  };

  const drawHandles = (focused = -1) => {
    for (const old of picture.querySelectorAll(".handle")) old.remove();
    const shape = shapes[chosen];
    if (!shape) return;
    shape.polygon.forEach((corner, number) => {
      const handle = document.createElement("button");
      handle.type = "button";
      handle.className = "handle";
      place(handle, corner, number, shape);
      handle.addEventListener("keydown", (event) => byKey(event, number));
      handle.addEventListener("pointerdown", (event) => byPointer(event, handle, number));
      picture.append(handle);
      if (number === focused) handle.focus();
    });
  };

  const byKey = (event, number) => {
    const { polygon } = shapes[chosen];
    const step = event.shiftKey ? 0.05 : 0.01;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (moves[event.key]) {
      const [right, down] = moves[event.key];
      const [x, y] = polygon[number];
      polygon[number] = [clamp(x + right), clamp(y + down)];
      place(event.currentTarget, polygon[number], number, shapes[chosen]);
      drawPolygons();
    } else if (event.key === "Insert") {
      insert(number + 1, middle(polygon[number], polygon[(number + 1) % polygon.length]));
    } else if (event.key === "Delete") {
      if (polygon.length > LEAST) {
        polygon.splice(number, 1);
        drawPolygons();
        drawHandles(Math.min(number, polygon.length - 1));
      } else say(`There are ${LEAST} corners at least.`, "wrong");
    } else return;
    event.preventDefault();
  };

  const byPointer = (event, handle, number) => {
    event.stopPropagation();
    handle.setPointerCapture(event.pointerId);
    const { polygon } = shapes[chosen];
    const move = (moved) => {
      polygon[number] = at(moved);
      place(handle, polygon[number], number, shapes[chosen]);
      drawPolygons();
    };
    handle.addEventListener("pointermove", move);
    const end = () => handle.removeEventListener("pointermove", move);
    handle.addEventListener("pointerup", end, { once: true });
    handle.addEventListener("pointercancel", end, { once: true });
  };

  const middle = (one, other) => [clamp((one[0] + other[0]) / 2), clamp((one[1] + other[1]) / 2)];
  const insert = (number, corner) => {
    const { polygon } = shapes[chosen];
    if (polygon.length >= MOST) return;
    polygon.splice(number, 0, corner);
    drawPolygons();
    drawHandles(number);
  };

  // Distance of a point from the edge between two corners.
  const distance = ([x, y], [ax, ay], [bx, by]) => {
    const length = (bx - ax) ** 2 + (by - ay) ** 2;
    const along = length ? Math.min(1, Math.max(0, ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length)) : 0;
    return Math.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay));
  };
  picture.addEventListener("click", (event) => {
    if (!shapes[chosen] || event.target.closest(".handle")) return;
    const { polygon } = shapes[chosen];
    const corner = at(event);
    const far = polygon.map((one, n) => distance(corner, one, polygon[(n + 1) % polygon.length]));
    insert(far.indexOf(Math.min(...far)) + 1, corner);
  });

  const button = (text, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", act);
    return made;
  };

  const nameOf = (zone, number) => {
    const label = document.createElement("label");
    const name = document.createElement("input");
    label.append(`Name of zone ${zones().indexOf(zone) + 1}`, name);
    name.value = zone.name;
    name.maxLength = 64;
    name.addEventListener("input", () => { zone.name = name.value; });
    name.addEventListener("focus", () => choose(number));
    return label;
  };

  const drawList = () => {
    list.replaceChildren(
      ...shapes.map((shape, number) => {
        const entry = document.createElement("li");
        entry.className = "row";
        entry.append(
          shape.isMask ? button(`Draw ${called(shape)}`, () => choose(number)) : nameOf(shape, number),
          button(`Remove ${called(shape)}`, () => {
            shapes.splice(number, 1);
            chosen = Math.max(0, Math.min(chosen, shapes.length - 1));
            draw();
          }),
        );
        return entry;
      }),
    );
  };
  const choose = (number) => {
    if (number === chosen) return;
    chosen = number;
    drawPolygons();
    drawHandles();
  };
  const draw = () => {
    drawPolygons();
    drawHandles();
    drawList();
  };

  const free = () => {
    for (let number = 1; ; number += 1)
      if (!zones().some((zone) => zone.name === `zone ${number}`)) return `zone ${number}`;
  };
  const add = (isMask) => {
    const polygon = [[0.3, 0.3], [0.7, 0.3], [0.7, 0.7], [0.3, 0.7]];
    shapes.push(isMask ? { isMask, polygon } : { isMask, name: free(), polygon });
    chosen = shapes.length - 1;
    draw();
    drawHandles(0);
  };
  for (const [what, isMask] of [["zone", false], ["mask", true]])
    editor.querySelector(`[data-do="${what}"]`).addEventListener("click", () => add(isMask));

  // As the settings have them.
  const told = (some) => some.map(({ isMask, ...shape }) => shape);

  editor.querySelector('[data-do="save"]').addEventListener("click", async (event) => {
    const pressed = event.currentTarget;
    pressed.disabled = true;
    say("Saving ...");
    try {
      const answer = await fetch(`${root}/api/settings`, {
        method: "PATCH",
        headers: { "Content-Type": "application/json", "X-CSRF-Token": document.body.dataset.csrf },
        body: JSON.stringify({
          edit: { cameras: { [editor.dataset.camera]: { zones: told(zones()), masks: told(masks()) } } },
          seen,
        }),
      });
      const said = await answer.json();
      if (answer.ok) {
        ({ seen } = said);
        say("Written; the gateway takes it within a second.", "done");
      } else say(`Nothing was changed: ${said.detail}`, "wrong");
    } catch {
      say("Nobody answers: nothing was changed.", "wrong");
    }
    pressed.disabled = false;
    pressed.focus();
  });
  draw();
});
