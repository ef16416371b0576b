// The quickstart run until its first training loss; the folder of the run is the argument.
import { loadRunConfig, train } from 'seqmix/train';

const config = loadRunConfig('configs/runs/quickstart.json', [`--output.dir=${process.argv[2]}`]);
const tick = ({ loss }) => {
  process.stdout.write(`${loss}\n`);
  process.exit();
};
await train(config, { progress: { line: () => {}, tick, stop: () => {} } });
