// Keeps a part of the page fresh: takes the server's own drawing of it, and puts each field that
// changed into its place, so that focus and selection stay where they are.
//
// <div id="fresh" data-from="/fragments/live" data-every="1000"> ... data-field="name" ... </div>
(() => {
  "use strict";
  const MOST_MS = 15000;
  const root = document.body.dataset.root;
  let failures = 0;

  const shown = () => document.getElementById("fresh");
  const fieldsOf = (part) =>
    new Map([...part.querySelectorAll("[data-field]")].map((each) => [each.dataset.field, each]));

  const put = (drawn) => {
    const before = fieldsOf(shown());
    const after = fieldsOf(drawn);
    const isSame =
      before.size === after.size && [...after.keys()].every((name) => before.has(name));
    if (!isSame) {
      shown().replaceWith(document.adoptNode(drawn));
      return;
    }
    for (const [name, field] of after) {
      const old = before.get(name);
      if (old.isEqualNode(field)) continue;
      const active = document.activeElement;
      const held = old.contains(active) ? active.getAttribute("href") : null;
      old.replaceChildren(...document.adoptNode(field).childNodes);
      if (held !== null)
        [...old.querySelectorAll("a")].find((a) => a.getAttribute("href") === held)?.focus();
    }
  };

  const say = (text) => {
    const place = document.querySelector('[data-field="trouble"]');
    const line = document.createElement("p");
    line.className = "card wrong";
    line.textContent = text;
    place?.replaceChildren(line);
  };

  const look = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(root + shown().dataset.from, { cache: "no-store" });
      if (answer.redirected) {
        location.reload(); // the login ended
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      const drawn = new DOMParser().parseFromString(await answer.text(), "text/html");
      put(drawn.getElementById("fresh"));
      failures = 0;
    } catch {
      failures += 1;
      if (failures >= 3) say("Nobody answers: what is shown here is old.");
    }
  };

  const every = () =>
    Math.min(Number(shown().dataset.every) * 2 ** Math.max(0, failures - 2), MOST_MS);
  const round = async () => {
    await look();
    setTimeout(round, every());
  };
  document.addEventListener("DOMContentLoaded", () => setTimeout(round, every()));
  document.addEventListener("visibilitychange", look);
})();
