'use strict';
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read('figure-data');
  const curves = read('curve-data');
  const settings = { responsive: true, displaylogo: false,
    modeBarButtons: [['toImage', 'zoom2d', 'pan2d', 'resetScale2d']] };
  const plots = [...document.querySelectorAll('.plot')];
  for (const plot of plots) {
    const { data, layout } = figures[plot.id];
    Plotly.newPlot(plot, data, layout, settings);
  }

  // The lines of one class, or those that the figure came with.
  for (const select of document.querySelectorAll('select[data-figure]')) {
    const plot = document.getElementById(select.dataset.figure);
    const mean = plot.data.map((line) => line.y);
    select.addEventListener('change', () => {
      Plotly.restyle(plot, { y: select.value === '' ? mean : curves[select.value] });
    });
  }

  // A page of paper is narrower than most screens, and nobody resizes it.
  const sized = (layout) => { for (const plot of plots) Plotly.relayout(plot, layout); };
  window.addEventListener('beforeprint', () => sized({ autosize: false, width: 640 }));
  window.addEventListener('afterprint', () => sized({ autosize: true, width: null }));

  // Of all cases those that fit the filters, a screenful or two at a time.
  const filters = document.getElementById('filters');
  if (filters === null) return;
  const cases = [...document.querySelectorAll('#cases > li')];
  const more = document.getElementById('more');
  const step = 24;
  let limit = step;
  const show = () => {
    const wanted = [...new FormData(filters)].filter(([, value]) => value !== '');
    const fit = cases.filter((one) => wanted.every(([name, value]) => one.dataset[name] === value));
    const shown = new Set(fit.slice(0, limit));
    for (const one of cases) one.hidden = !shown.has(one);
    more.hidden = fit.length <= limit;
    document.getElementById('count').textContent =
      `${shown.size} shown of ${fit.length}` + (fit.length === 1 ? ' picture' : ' pictures');
  };
  filters.addEventListener('change', () => { limit = step; show(); });
  filters.addEventListener('submit', (event) => event.preventDefault());
  more.addEventListener('click', () => {
    const next = limit;
    limit += step;
    show();
    // For a keyboard the next pictures begin where the last ones ended.
    const first = cases.filter((one) => !one.hidden)[next];
    first.tabIndex = -1;
    first.focus();
  });
  show();  // A browser that comes back to the page keeps what was chosen.
})();
