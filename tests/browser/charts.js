// What Vega has drawn: for each chart in sight its description, whether it is cut off, and its plots. A plot has its
// place and size and, where both axes say the same unit in parentheses, how many times longer a step along x is than one
// along y. Of a relief also what it is turned by.
() => {
  const viewOf = element => { // Streamlit keeps Vega's view in a hook of the component around it
    const key = Object.keys(element).find(name => name.startsWith('__reactFiber$'));
    for (let fiber = element[key]; fiber; fiber = fiber.return)
      for (let hook = fiber.memoizedState; hook && typeof hook === 'object'; hook = hook.next) {
        const held = hook.memoizedState?.current ?? hook.memoizedState;
        if (typeof held?.scenegraph === 'function') return held;
      }
    return null;
  };
  const axisOf = (view, group, orients) => {
    for (const axis of group.items.filter(mark => mark.role === 'axis').flatMap(mark => mark.items)) {
      const title = axis.items.find(part => part.role === 'axis-title')?.items[0]?.text;
      if (!title || !orients.includes(axis.orient)) continue;
      const scale = view.scale(axis.datum.scale), [a, b] = scale.domain(), [c, d] = scale.range();
      const unit = /\(([^()]*)\)$/.exec(String(title))?.[1];
      return {unit, linear: scale.type === 'linear', step: Math.abs((d - c) / (b - a))};
    }
    return {};
  };
  const plotsOf = (view, group, left = 0, top = 0) => {
    [left, top] = [left + group.x, top + group.y];
    if (!group.items.some(mark => mark.role === 'axis' || mark.role === 'mark')) {
      const parts = group.items.filter(mark => mark.role === 'scope').flatMap(mark => mark.items);
      return parts.flatMap(part => plotsOf(view, part, left, top));
    }
    const x = axisOf(view, group, ['bottom', 'top']), y = axisOf(view, group, ['left', 'right']);
    const alike = x.unit && x.unit === y.unit && x.linear && y.linear;
    return [{left, top, width: group.width, height: group.height, aspect: alike ? x.step / y.step : null}];
  };
  const charts = [...document.querySelectorAll('[data-testid="stMain"] [data-testid="stVegaLiteChart"]')];
  return charts.filter(chart => chart.checkVisibility()).map(chart => {
    const drawn = chart.querySelector('canvas, svg'), view = viewOf(drawn.parentElement);
    const said = chart.querySelector('[aria-label]')?.getAttribute('aria-label') ?? '';
    const cut = drawn.getBoundingClientRect().right > chart.getBoundingClientRect().right + 1;
    if (!view) return {said, cut, plots: [], turned: null};
    const plots = view.scenegraph().root.items.flatMap(group => plotsOf(view, group));
    const {signals} = view.getState({signals: name => /^(turn|tilt)_/.test(name ?? ''), data: () => false});
    return {said: said.slice(0, 80), cut, plots, turned: Object.keys(signals).length ? signals : null};
  });
}
