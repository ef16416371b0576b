import { writeFileSync } from 'node:fs';
import { type LinePlot, linePlot, type PlotSeries } from '../plot/index.js';
import {
  frequencyGrid,
  legsTransfer,
  modalTransfer,
  type SizeStudy,
  spikeFrequencies,
  transferStudy,
} from '../ssm/index.js';

export interface SsmTransferFlags {
  sizes: number[];
  seed: number;
  gamma: number;
  steps: number;
  plot?: string;
  json: boolean;
}

/** `seqmix ssm-transfer`: a Markdown table (or JSON) on stdout, progress on stderr. */
export async function runSsmTransfer({ plot, json, ...options }: SsmTransferFlags): Promise<number> {
  const wrong = options.sizes.find((size) => !(size >= 4 && size % 2 === 0));
  if (wrong !== undefined) throw new RangeError(`ssm-transfer: each size must be even and at least 4, got ${wrong}`);
  const studies = transferStudy({ ...options, progress: (size, model) => console.error(`N = ${size}: ${model}`) });
  if (plot) writeFileSync(plot, await linePlot(errorPlot(studies)));
  console.log(json ? JSON.stringify(studies.map(plainStudy), null, 2) : transferTable(studies));
  return 0;
}

/** One row for each size and form. */
export function transferTable(studies: readonly SizeStudy[]): string {
  const head = [
    'N',
    'form',
    '‖E‖',
    'κ(V)',
    'max Re λ',
    'sup error',
    'error at ω = 1',
    'error at the spike',
    'gain at the spike',
  ];
  const rows = studies.flatMap(({ size, exact, models }) => [
    [String(size), 'HiPPO-LegS itself', '', '', '', `(sup of G: ${short(exact.sup)})`, '', '', short(exact.spikeGain)],
    ...models.map(({ model, eps, kappa, maxRe, sup, atOne, atSpike, spikeGain }) => [
      String(size),
      model,
      eps > 0 ? short(eps) : '',
      short(kappa),
      maxRe.toFixed(2),
      ...[sup, atOne, atSpike, spikeGain].map(short),
    ]),
  ]);
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** Two digits. */
const short = (x: number): string => (x >= 0.01 && x < 1e3 ? String(Number(x.toPrecision(2))) : x.toExponential(1));

/** Without the systems themselves. */
const plainStudy = ({ size, spike, dt, exact, models }: SizeStudy) => ({ size, spike, dt, exact, models });

/** Forms drawn: S4D-LegS and the two PTD ones whose error is the size of E at most. */
const DRAWN = [
  { index: 0, color: ['#e6b0aa', '#d98880', '#c0392b', '#7b241c'] },
  { index: 1, color: ['#a9cce3', '#7fb3d5', '#2e86c1', '#1b4f72'] },
  { index: 3, color: ['#a9dfbf', '#7dcea0', '#229954', '#145a32'] },
];

/** |G_form - G| over frequency. */
function errorPlot(studies: readonly SizeStudy[]): LinePlot {
  const last = studies.length - 1;
  return {
    title: 'Error of the transfer function of HiPPO-LegS',
    x: { name: 'ω', log: true },
    y: { name: '|error|', log: true, min: 1e-8, max: 100 },
    width: 1000,
    height: 520,
    series: DRAWN.flatMap(({ index, color }) =>
      studies.map(
        (study, i): PlotSeries => ({
          name: `${study.models[index].model.replace(/, gamma .*/, '')}, N = ${study.size}`,
          color: color[Math.max(0, color.length - 1 - last + i)],
          width: i === last ? 1.8 : 1,
          points: errorPoints(study, index),
        }),
      ),
    ),
  };
}

/** A grid fine enough to draw, and every spike. */
function errorPoints({ size, systems, b, c }: SizeStudy, index: number): [number, number][] {
  const omegas = [...frequencyGrid(size, 240), ...spikeFrequencies(size)].sort((p, q) => p - q);
  return omegas.map((omega) => {
    const [got, want] = [modalTransfer(systems[index], omega), legsTransfer(b, c, omega)];
    return [Number(omega.toPrecision(5)), Number(Math.hypot(got[0] - want[0], got[1] - want[1]).toPrecision(4))];
  });
}
