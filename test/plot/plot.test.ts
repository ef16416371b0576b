/** The SVG of line plots: what is drawn, and where. */
import { expect, test } from 'vitest';
import { linePlot } from '../../src/plot/index.js';

const decades = (y: (x: number) => number) => [1, 10, 100, 1000].map((x) => [x, y(x)] as const);

/** The corners of the first line drawn in a colour. */
function corners(svg: string, color: string): [number, number][] {
  const path = svg.match(new RegExp(`<path d="([^"]*)"[^>]*stroke="${color}"[^>]*stroke-width="1.5"`))?.[1] ?? '';
  return [...path.matchAll(/[ML ]?(-?[\d.]+) (-?[\d.]+)/g)].map(([, x, y]) => [Number(x), Number(y)]);
}

test('a power law is a straight line between logarithmic axes', async () => {
  const svg = await linePlot({
    title: 'falls',
    x: { name: 'frequency', log: true },
    y: { name: 'error', log: true },
    series: [{ name: 'one over x', color: '#123456', points: decades((x) => 1 / x) }],
  });
  for (const text of ['<svg', 'falls', 'frequency', 'error', 'one over x', '1e-3']) expect(svg).toContain(text);
  const line = corners(svg, '#123456');
  expect(line).toHaveLength(4);
  const [first, second, , last] = line;
  const steps = [second[0] - first[0], second[1] - first[1]];
  expect(last[0] - first[0]).toBeCloseTo(3 * steps[0], 0);
  expect(last[1] - first[1]).toBeCloseTo(3 * steps[1], 0);
  expect(steps[1]).toBeGreaterThan(0); // down the picture
});

test('zeros are left out of a logarithmic axis, and kept on a linear one', async () => {
  const plot = (log: boolean) =>
    linePlot({
      title: '',
      x: { name: 'x' },
      y: { name: 'y', log },
      series: [
        {
          name: 's',
          color: '#123456',
          points: [
            [0, 1],
            [1, 0],
            [2, 4],
          ],
        },
      ],
    });
  expect(corners(await plot(true), '#123456')).toHaveLength(2);
  expect(corners(await plot(false), '#123456')).toHaveLength(3);
});
