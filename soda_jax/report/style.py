"""The style sheet of the report: one column, system fonts, a light and a dark colour set."""

STYLE = """
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1d2329; --soft: #5d6872; --rule: #e3e6e9; --wash: #f5f6f7; --mark: #e8f0f8;
  --warn: #fbf1df; --c0: #1f66ad; --c1: #c05d12; --c2: #7a8691; --c3: #3d8555; --c4: #8a56a8; --c5: #a8324a; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171a; --ink: #dfe3e7; --soft: #98a3ad; --rule: #2c3238; --wash: #1c2024; --mark: #1c3147;
  --warn: #3a2f17; --c0: #6aaee8; --c1: #e8965a; --c2: #95a0aa; --c3: #74bd8b; --c4: #bd92d8;
  --c5: #e5788c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2.2rem 1.4rem 4rem; background: var(--paper);
  color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .2rem; font-weight: 650; }
h2 { font-size: 1.2rem; margin: 2.8rem 0 .5rem; padding-top: .9rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
p { max-width: 46rem; margin: .4rem 0 .8rem; }
.soft, figcaption, small { color: var(--soft); }
.verdict { font-size: 1.08rem; max-width: 52rem; margin: 1rem 0; }
.note { background: var(--wash); border-left: 3px solid var(--rule); padding: .55rem .9rem;
  max-width: 46rem; }
.warn { background: var(--warn); border-left-color: var(--c1); }
dl.facts { display: flex; flex-wrap: wrap; gap: .8rem 2.4rem; margin: 1.2rem 0 0; }
dl.facts div { display: flex; flex-direction: column-reverse; }
dl.facts dt { color: var(--soft); font-size: .86rem; }
dl.facts dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.pair { display: grid; gap: .6rem 1.6rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
figure { margin: .8rem 0; }
figcaption { font-size: .9rem; margin-top: .3rem; max-width: 46rem; }
.pair figcaption { margin: 0 0 .2rem; color: var(--ink); font-weight: 600; }
img { max-width: 100%; height: auto; display: block; }
svg { width: 100%; height: auto; display: block; font-size: 12px; }
svg text { fill: var(--soft); }
svg text.on { fill: var(--paper); }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .rule { stroke: var(--rule); stroke-width: 1; }
svg .line, svg .faint, svg .dashed { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .faint { stroke-width: 1; opacity: .4; }
svg .dashed { stroke-dasharray: 5 4; }
svg .band { stroke: none; opacity: .16; }
svg .fill { stroke: none; }
svg .c0 { stroke: var(--c0); } svg .c0.fill, svg .c0.band { fill: var(--c0); }
svg .c1 { stroke: var(--c1); } svg .c1.fill, svg .c1.band { fill: var(--c1); }
svg .c2 { stroke: var(--c2); } svg .c2.fill, svg .c2.band { fill: var(--c2); }
svg .c3 { stroke: var(--c3); } svg .c3.fill, svg .c3.band { fill: var(--c3); }
svg .c4 { stroke: var(--c4); } svg .c4.fill, svg .c4.band { fill: var(--c4); }
svg .c5 { stroke: var(--c5); } svg .c5.fill, svg .c5.band { fill: var(--c5); }
svg .fill { stroke: none; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .8rem 0; }
th { text-align: right; font-weight: 600; padding: .25rem .7rem; border-bottom: 1px solid var(--soft);
  vertical-align: bottom; }
td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th.group { text-align: center; border-bottom: 0; }
td small { display: block; font-size: .76rem; line-height: 1.2; }
td.best { background: var(--mark); font-weight: 650; }
td.best small { font-weight: 400; }
table.plain td { text-align: left; white-space: normal; }
code, pre { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, "Liberation Mono", monospace; }
pre { background: var(--wash); padding: .7rem .9rem; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; margin: .5rem 0; }
summary { cursor: pointer; color: var(--soft); }
footer { margin-top: 3rem; color: var(--soft); font-size: .86rem; }
@media print { body { max-width: none; } details > * { display: block; } }
"""
