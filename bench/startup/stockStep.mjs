// TensorFlow.js alone until the loss of a linear layer: what no package on top of it can start faster than.
import * as tf from '@tensorflow/tfjs';
import '@tensorflow/tfjs-backend-wasm';

await tf.setBackend('wasm');
const weight = tf.variable(tf.randomNormal([128, 128]));
const x = tf.randomNormal([32, 128]);
const loss = tf.train.adam().minimize(() => tf.mean(tf.square(tf.matMul(x, weight))), true);
process.stdout.write(`${(await loss.data())[0]}\n`);
