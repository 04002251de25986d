"""The script of the explorer. The state is (image, slider, place); everything shown follows from it."""

SCRIPT = """
'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const middle = (data.amounts.length - 1) / 2;
const sliders = [...document.querySelectorAll('input[data-slider]')];
const choices = [...document.querySelectorAll('.choice')];
const at = id => document.getElementById(id);
let scene = 0, slider = 0, place = 0, holding = false;

function picture() {
  const one = data.scenes[scene];
  if (place === 0 || holding) return one.redrawn;
  return one.frames[slider][middle + place - (place > 0 ? 1 : 0)];
}
function amount() {
  const value = data.amounts[middle + place];
  return (value > 0 ? '+' : value < 0 ? '\\u2212' : '') + Math.abs(value).toFixed(2).replace(/\\.?0+$/, '');
}
function show() {
  const one = data.scenes[scene], name = sliders[slider].labels[0].textContent;
  at('real').src = one.image;
  at('before').src = one.redrawn;
  at('after').src = picture();
  const edit = place === 0 ? 'as it is' : name + ' at ' + amount() + ' standard deviations';
  at('after').alt = holding ? 'before the edit' : 'drawn from z, ' + edit;
  at('state').textContent = 'Image ' + (scene + 1) + (one.words ? ' (' + one.words + ')' : '') + ': ' + edit;
  document.body.classList.toggle('holding', holding);
  at('compare').setAttribute('aria-pressed', holding);
  choices.forEach((choice, i) => choice.setAttribute('aria-pressed', i === scene));
  sliders.forEach((input, i) => {
    const moved = i === slider && place !== 0;
    input.value = moved ? place : 0;
    at('o' + i).textContent = moved ? amount() : '0';
    input.setAttribute('aria-valuetext', (moved ? amount() : '0') + ' standard deviations');
    input.closest('.row').classList.toggle('moved', moved);
  });
}
function set(change) {
  ({scene, slider, place, holding} = {scene, slider, place, holding, ...change});
  show();
}
const hold = () => set({holding: true}), release = () => holding && set({holding: false});

sliders.forEach((input, i) => input.addEventListener('input', () => set({slider: i, place: Number(input.value)})));
choices.forEach((choice, i) => {
  choice.querySelector('img').src = data.scenes[i].image;
  choice.addEventListener('click', () => set({scene: i}));
});
for (const id of ['after', 'compare']) {
  at(id).addEventListener('pointerdown', hold);
  for (const end of ['pointerup', 'pointerleave', 'pointercancel']) at(id).addEventListener(end, release);
}
at('compare').addEventListener('keydown', e => { if (e.key === ' ' || e.key === 'Enter') hold(); });
at('compare').addEventListener('keyup', release);
at('compare').addEventListener('blur', release);
at('reset').addEventListener('click', () => set({place: 0}));
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const number = Number(event.key);
  if (event.key === '0') set({place: 0});
  else if (number >= 1 && number <= data.scenes.length) set({scene: number - 1});
  else if (event.key === 'b' && !event.repeat) hold();
});
document.addEventListener('keyup', event => { if (event.key === 'b') release(); });
window.addEventListener('blur', release);
show();
"""
