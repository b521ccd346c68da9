// Keeps the first page fresh: takes the server's own drawing of it, and puts each part that
// changed into its place, so that focus and selection stay where they are.
(() => {
  "use strict";
  const EVERY_MS = 1000;
  const root = document.body.dataset.root;
  let failures = 0;

  const partsOf = (live) =>
    new Map([...live.querySelectorAll("[data-field]")].map((part) => [part.dataset.field, part]));

  const put = (fresh) => {
    const shown = document.getElementById("live");
    const before = partsOf(shown);
    const after = partsOf(fresh);
    const isSame =
      before.size === after.size && [...after.keys()].every((name) => before.has(name));
    if (!isSame) {
      shown.replaceWith(document.adoptNode(fresh));
      return;
    }
    for (const [name, part] of after) {
      const old = before.get(name);
      if (old.isEqualNode(part)) continue;
      const held = old.contains(document.activeElement) ? document.activeElement.href : null;
      old.replaceWith(document.adoptNode(part));
      if (held) [...part.querySelectorAll("a")].find((link) => link.href === held)?.focus();
    }
  };

  const say = (text) => {
    const trouble = document.querySelector('[data-field="trouble"]');
    const line = document.createElement("p");
    line.className = "card wrong";
    line.textContent = text;
    trouble.replaceChildren(line);
  };

  const look = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(`${root}/fragments/live`, { cache: "no-store" });
      if (answer.redirected) {
        location.reload(); // the login ended
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      const drawn = new DOMParser().parseFromString(await answer.text(), "text/html");
      put(drawn.getElementById("live"));
      failures = 0;
    } catch {
      failures += 1;
      if (failures >= 3) say("The gateway does not answer: what is shown is old.");
    }
  };

  const round = async () => {
    await look();
    setTimeout(round, Math.min(EVERY_MS * 2 ** Math.max(0, failures - 2), 15000));
  };
  setTimeout(round, EVERY_MS);
  document.addEventListener("visibilitychange", look);
})();
