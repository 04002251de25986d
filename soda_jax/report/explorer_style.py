"""What the explorer adds to the style sheet of the report."""

STYLE = """
.bench { display: grid; gap: 1.2rem 2rem; grid-template-columns: minmax(0, 1.25fr) minmax(0, 1fr);
  align-items: start; margin-top: 1rem; }
.stage { position: sticky; top: .8rem; }
.views { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 5fr) minmax(0, 5fr); gap: .8rem;
  align-items: end; }
.view { margin: 0; }
.view img { width: 100%; aspect-ratio: 1; image-rendering: pixelated; border-radius: 4px; background: var(--wash); }
.view figcaption { margin: 0 0 .2rem; }
#after { cursor: pointer; touch-action: none; }
.holding #after { outline: 3px solid var(--c1); outline-offset: 2px; }
#state { min-height: 1.6em; margin: .6rem 0; font-variant-numeric: tabular-nums; }
.choices { display: flex; flex-wrap: wrap; gap: .5rem; }
button { font: inherit; color: var(--ink); background: var(--wash); border: 1px solid var(--rule); border-radius: 4px;
  padding: .3rem .7rem; cursor: pointer; }
button:hover, button[aria-pressed="true"] { border-color: var(--c0); background: var(--mark); }
:focus-visible { outline: 2px solid var(--c0); outline-offset: 2px; }
.choice { padding: .25rem; line-height: 1; text-align: center; }
.choice img { width: 3.4rem; height: 3.4rem; image-rendering: pixelated; border-radius: 2px; margin-bottom: .25rem; }
kbd { font: 12px ui-monospace, Menlo, "Liberation Mono", monospace; color: var(--soft); }
fieldset { border: 0; border-top: 1px solid var(--rule); margin: 0 0 1rem; padding: .5rem 0 0; min-width: 0; }
legend { font-weight: 600; padding: 0 .6rem 0 0; }
.row { display: grid; grid-template-columns: 6.2rem minmax(0, 1fr) 3.2rem; gap: 0 .6rem; align-items: center;
  padding: .22rem 0; }
.row input { width: 100%; accent-color: var(--c0); margin: 0; }
.row output { text-align: right; font-variant-numeric: tabular-nums; }
.row small { grid-column: 2 / 4; font-size: .78rem; line-height: 1.3; }
.row.moved label { font-weight: 650; }
@media (max-width: 760px) { .bench { grid-template-columns: minmax(0, 1fr); } .stage { position: sticky; top: 0;
  background: var(--paper); padding: .4rem 0; z-index: 1; } .choice img { width: 2.4rem; height: 2.4rem; } }
"""
