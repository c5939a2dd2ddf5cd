'use strict';

const MOST = 100e6;   // bytes, as the server takes
const at = (id) => document.getElementById(id);
let model = null;
let picture = null;   // id, name, size and seconds of the picture that is shown
let sent = 0;         // pictures sent and results asked for: an answer that a later one has
let asked = 0;        // overtaken is dropped
let waiting = 0;

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error('no answer: is `mmresnest demo` still running?');
  }
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  return said;
}

function show(id, text) {
  at(id).textContent = text;
  at(id).hidden = !text;
}

function makeColor(color) {
  const space = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(space, 'svg');
  const rect = document.createElementNS(space, 'rect');
  svg.setAttribute('class', 'color');
  svg.setAttribute('viewBox', '0 0 12 12');
  for (const [name, value] of Object.entries({x: 1, y: 1, width: 10, height: 10, fill: color})) {
    rect.setAttribute(name, value);
  }
  svg.append(rect);
  return svg;
}

function countThings(number, one, several) {
  return `${number} ${number === 1 ? one : several}`;
}

function readQuery() {
  const query = new URLSearchParams({id: picture.id, score: at('score').value});
  const boxes = [...at('classes').querySelectorAll('input')];
  const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
  if (chosen.length < boxes.length) query.set('classes', chosen.join(','));
  return query;
}

async function showResult() {
  if (!picture) return;
  const mine = ++asked;
  const query = readQuery();
  show('message', '');
  document.body.classList.add('busy');
  try {
    const said = await ask(`result?${query}`);
    const image = new Image();
    image.src = `picture.jpg?${query}`;
    await image.decode().catch(() => { throw new Error('the picture cannot be drawn'); });
    if (mine !== asked) return;
    at('picture').src = image.src;
    at('picture').alt = `${picture.name} with what was found`;
    at('large').href = image.src;
    at('large').hidden = at('found').hidden = false;
    at('count').textContent = countThings(said.rows.length, ...(model.scored ? ['object', 'objects'] : ['class', 'classes']));
    show('note', said.note);
    at('rows').replaceChildren(...said.rows.map((row) => {
      const line = document.createElement('li');
      const value = document.createElement('b');
      value.textContent = row.value;
      line.append(makeColor(row.color), row.name, value);
      return line;
    }));
    at('json').href = `predictions.json?${query}`;
    at('zip').href = `predictions.zip?${query}`;
    document.body.dataset.shown = query;
  } catch (error) {
    if (mine === asked) show('message', error.message);
  } finally {
    if (mine === asked) document.body.classList.remove('busy');
  }
}

async function send(files) {
  const [file] = files;
  if (!file) return;
  const mine = ++sent;
  show('message', '');
  document.body.classList.add('busy');
  show('status', `Predicting on ${file.name} …`);
  try {
    if (file.size > MOST) {
      throw new Error(`${file.name} has ${Math.round(file.size / 1e6)} MB, and at most ${MOST / 1e6} are taken; scale the picture down`);
    }
    const said = await ask(`predict?${new URLSearchParams({name: file.name})}`, {method: 'POST', body: file});
    if (mine !== sent) return;
    picture = said;
    await showResult();
  } catch (error) {
    if (mine === sent) show('message', error.message);
  }
  if (mine !== sent) return;
  document.body.classList.remove('busy');
  show('status', !picture ? 'No picture yet.'
    : `${picture.name}: ${picture.width} × ${picture.height} pixels, ${picture.seconds} s`
      + (files.length > 1 ? '; of several files the first is taken' : ''));
}

function addClass(row) {
  const line = document.createElement('li');
  const label = document.createElement('label');
  const box = document.createElement('input');
  Object.assign(box, {type: 'checkbox', value: row.label, checked: true});
  label.append(box, makeColor(row.color), row.name);
  line.append(label);
  at('classes').append(line);
}

function chooseAll(checked) {
  for (const box of at('classes').querySelectorAll('input')) box.checked = checked;
  showResult();
}

async function start() {
  model = await ask('model');
  const kinds = {detection: 'boxes', instance: 'boxes and masks', panoptic: 'panoptic segments', semantic: 'a class for each pixel'};
  const count = model.classes.length;
  at('model').textContent = `${model.title}: ${kinds[model.task]}, ${countThings(count, 'class', 'classes')}`;
  Object.assign(at('score'), {min: model.least, value: model.score});
  at('score').value = model.score;   // once the range is known
  at('score-shown').textContent = Number(at('score').value).toFixed(2);
  at('threshold').hidden = !model.scored;
  at('choice').hidden = count < 2;
  at('json').hidden = !model.scored;   // that of maps names files, which the archive holds
  model.classes.forEach(addClass);
}

at('score').addEventListener('input', () => {
  at('score-shown').textContent = Number(at('score').value).toFixed(2);
  clearTimeout(waiting);
  waiting = setTimeout(showResult, 120);
});
at('classes').addEventListener('change', showResult);
at('all').addEventListener('click', () => chooseAll(true));
at('none').addEventListener('click', () => chooseAll(false));
at('file').addEventListener('change', () => {
  send([...at('file').files]);
  at('file').value = '';   // the same file may be chosen again
});
document.addEventListener('paste', (event) => send([...event.clipboardData.files]));
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.add('over');
});
document.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) document.body.classList.remove('over');
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('over');
  send([...event.dataTransfer.files]);
});
start().catch((error) => show('message', error.message));
