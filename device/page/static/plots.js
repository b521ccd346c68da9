// Curves of the last hour, drawn as SVG.
(() => {
  "use strict";
  const EVERY_MS = 5000;
  const WIDTH = 600;
  const HEIGHT = 100;
  const TONES = 4;
  const root = document.body.dataset.root;

  const svg = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const html = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const percent = (share) => `${Math.round(100 * share)} %`;
  const clock = (wall) =>
    new Date(1000 * wall).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

  // Runs of neighbouring points that are known: what is not known is a gap, never a zero.
  const runsOf = (points, value) => {
    const runs = [[]];
    for (const point of points) {
      const found = value(point);
      if (found === null || found === undefined) runs.push([]);
      else runs.at(-1).push([point.wall, found]);
    }
    return runs.filter((run) => run.length > 1);
  };

  const draw = (place, points, curves) => {
    const known = curves.filter((curve) => runsOf(points, curve.value).length);
    if (!known.length) {
      place.replaceChildren(html("p", "soft small", "Nothing to draw yet."));
      return;
    }
    const first = points[0].wall;
    const span = Math.max(1, points.at(-1).wall - first);
    const x = (wall) => ((wall - first) / span) * WIDTH;
    const y = (share) => (1 - share) * HEIGHT;
    const line = (run, at) => run.map(([wall, found]) => `${x(wall)},${y(at(found))}`);
    const picture = svg("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": known
        .map((curve) => `${curve.name}: ${percent(curve.last(points))} now`)
        .join(", "),
    });
    for (const level of [0, 0.5, 1])
      picture.append(svg("line", { class: "level", x1: 0, x2: WIDTH, y1: y(level), y2: y(level) }));
    known.forEach((curve, place) => {
      const tone = `tone${place % TONES}`;
      for (const run of runsOf(points, curve.value)) {
        if (curve.low) {
          const edge = [...line(run, curve.low), ...line(run, curve.high).reverse()];
          picture.append(svg("polygon", { class: `band ${tone}`, points: edge.join(" ") }));
        }
        picture.append(
          svg("polyline", { class: `curve ${tone}`, points: line(run, curve.at).join(" ") }),
        );
      }
    });
    const axis = html("div", "axis");
    for (const level of [1, 0.5, 0]) axis.append(html("span", "", percent(level)));
    const times = html("p", "times");
    times.append(html("span", "", clock(first)), html("span", "", clock(first + span)));
    const legend = html("ul", "legend");
    known.forEach((curve, place) => {
      const entry = html("li");
      const swatch = svg("svg", { viewBox: "0 0 12 6", "aria-hidden": "true" });
      swatch.append(
        svg("line", { class: `swatch tone${place % TONES}`, x1: 0, x2: 12, y1: 3, y2: 3, "stroke-width": 2 }),
      );
      entry.append(swatch, ` ${curve.name}: ${percent(curve.last(points))}`);
      legend.append(entry);
    });
    place.replaceChildren(axis, picture, times, legend);
  };

  const lastOf = (value, at) => (points) => at(points.map(value).filter((v) => v != null).at(-1));
  const plain = (name, value) => ({ name, value, at: (v) => v, last: lastOf(value, (v) => v) });
  const estimated = (task) => {
    const value = (point) => point.recall[task];
    return { name: task, value, at: (v) => v[0], low: (v) => v[1], high: (v) => v[2], last: lastOf(value, (v) => v[0]) };
  };

  const look = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(`${root}/api/history`, { cache: "no-store" });
        if (answer.ok) {
          const { points } = await answer.json();
          const tasks = [...new Set(points.flatMap((point) => Object.keys(point.recall)))].sort();
          const at = (name) => document.querySelector(`[data-plot="${name}"] .plot`);
          draw(at("saved"), points, [
            plain("CPU saved", (point) => point.saved),
            plain("budget used", (point) => (point.budget === null ? null : Math.min(1, point.budget))),
          ]);
          draw(at("recall"), points, tasks.map(estimated));
        }
      } catch {
        // The other script says that nobody answers.
      }
    }
    setTimeout(look, EVERY_MS);
  };
  look();
})();
