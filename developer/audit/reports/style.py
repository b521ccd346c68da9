"""How the page looks: light, dark, on a phone and on paper."""

CSS = """
:root {
  color-scheme: light dark;
  --ink: #1c2430; --soft: #5a6675; --line: #d5dbe3; --paper: #ffffff; --card: #f5f7fa;
  --hit: #b3261e; --control: #6b7a8c; --track: #e3e8ee; --link: #0b57a4;
  --alarm: #8c1d18; --alarm-paper: #fdecea;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6eaf0; --soft: #9aa7b6; --line: #35404d; --paper: #12171e; --card: #1a212b;
    --hit: #ff8a80; --control: #8795a6; --track: #2a3440; --link: #8ab8f0;
    --alarm: #ffb4ab; --alarm-paper: #3a1512;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 62rem; padding: 1.5rem 1.25rem 3rem;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  color: var(--ink); background: var(--paper); overflow-wrap: anywhere;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; border-top: 1px solid var(--line);
  padding-top: 1.1rem; }
h3 { font-size: 1rem; margin: 1.3rem 0 .2rem; }
p { margin: .4rem 0; max-width: 46rem; }
code { font-size: .92em; background: var(--card); padding: 0 .2em; border-radius: .2em; }
a { color: var(--link); }
.soft { color: var(--soft); }
.alarm { border: 2px solid var(--alarm); background: var(--alarm-paper); color: var(--alarm);
  border-radius: .5rem; padding: .6rem .9rem; margin: .8rem 0; font-weight: 600;
  max-width: none; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; font-size: .95rem; }
caption { text-align: left; color: var(--soft); padding-bottom: .3rem; }
th, td { text-align: left; padding: .4rem .7rem .4rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: normal; }
thead th { color: var(--soft); font-weight: 600; font-size: .85rem; }
tbody th { font-weight: 600; }
.figure { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.wide { overflow-x: auto; }
.bar { width: 30%; min-width: 8rem; }
svg { display: block; width: 100%; height: 1.15rem; margin-top: .2rem; }
.hit { fill: var(--hit); } .control { fill: var(--control); } .track { fill: var(--track); }
.name { color: var(--soft); white-space: nowrap; }
.much { color: var(--hit); font-weight: 700; }
.key { display: inline-block; width: .8em; height: .8em; border-radius: .15em;
  margin: 0 .35em 0 .8em; background: var(--control); }
.key.red { background: var(--hit); margin-left: 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem;
  margin: .6rem 0; }
dt { color: var(--soft); } dd { margin: 0; }
.story dl { font-size: .95rem; }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); padding-top: .8rem;
  color: var(--soft); font-size: .9rem; }
@media (max-width: 40rem) {
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  table, caption, tbody, tr, th, td { display: block; }
  tr { border-bottom: 1px solid var(--line); padding: .5rem 0; }
  th, td { border: 0; padding: .1rem 0; }
  td[data-label] { display: flex; justify-content: space-between; gap: 1rem;
    text-align: right; }
  td[data-label]::before { content: attr(data-label); color: var(--soft); text-align: left; }
  .bar { width: 100%; }
  dl { display: block; } dd { margin-bottom: .4rem; }
}
@media print {
  :root { color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  svg, .key, .alarm { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  tr, .story { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  a[href^="http"]::after { content: " (" attr(href) ")"; font-size: .85em; }
}
"""
