/**
 * Published MatMul-free language models (`ridger/MMfreeLM-*` on the Hugging Face hub; https://github.com/ridgerchu/matmulfreellm,
 * https://arxiv.org/abs/2406.02528): layers of MLGRU and a gated unit, every matrix but the table ternary. The files hold the weights as
 * they were trained, before rounding. Their tensor names and layouts are ours; only the config differs.
 */
import { ConfigError, type Problem, quote } from '../../config/problems.js';
import { type ModelConfig, resolveModelConfig } from '../config.js';
import { BOUNDS } from '../decoder.js';
import type { MixerConfig } from '../mixers/index.js';
import type { NamedArrays } from '../trainableModel.js';

type Json = Record<string, unknown>;

/** What a field that is absent or null means: the defaults of the published model class. */
const defaults = {
  model_type: 'hgrn_bit',
  vocab_size: 32000,
  hidden_size: 2048,
  num_hidden_layers: 24,
  attn_mode: 'fused_recurrent',
  num_heads: 1,
  expand_ratio: 1,
  use_short_conv: false,
  conv_size: 4,
  share_conv_kernel: true,
  use_lower_bound: true,
  hidden_ratio: 4,
  intermediate_size: null,
  hidden_act: 'swish',
  rms_norm_eps: 1e-6,
  tie_word_embeddings: false,
  initializer_range: 0.02,
} as const;

/** Fields whose other values change the model in ways we do not have. */
const supported: Record<string, readonly unknown[]> = {
  model_type: ['hgrn_bit'],
  hidden_act: ['swish', 'silu'],
  tie_word_embeddings: [false],
};

/** True when a `config.json` is of a published MatMul-free model. */
export const isHgrnBitConfig = (json: unknown): boolean => (json as Json | null)?.model_type === 'hgrn_bit';

/**
 * Our config for a published `config.json`. Missing fields have the published defaults; unknown ones, and those without numerical
 * meaning (`attn_mode`, `num_heads`, `max_position_embeddings`, ...), are ignored.
 * @param source where it came from, for the error
 * @throws ConfigError listing every field with a value that we do not support
 */
export function configFromHgrnBit(json: unknown, source = 'config.json'): ModelConfig {
  const given = Object.entries((json ?? {}) as Json).filter(([, value]) => value !== null);
  const c: Json = { ...defaults, ...Object.fromEntries(given) };
  const wrong = Object.entries(supported).filter(([path, values]) => !values.includes(c[path]));
  const problems = wrong.map(([path, values]): Problem => {
    return { path, message: `supported: ${values.map(quote).join(' or ')}, got ${quote(c[path])}` };
  });
  if (problems.length) throw new ConfigError(source, problems);
  const model = {
    vocabSize: c.vocab_size,
    hiddenSize: c.hidden_size,
    numLayers: c.num_hidden_layers,
    mixers: [
      {
        type: 'mlgru',
        expandRatio: c.expand_ratio,
        useShortConv: c.use_short_conv,
        convSize: c.conv_size,
        shareConvKernel: c.share_conv_kernel,
        useLowerBound: c.use_lower_bound,
      },
    ],
    mlp: { type: 'bit_glu', hiddenRatio: c.hidden_ratio, intermediateSize: c.intermediate_size ?? undefined },
    linear: 'bit',
    normEps: c.rms_norm_eps,
    tieEmbeddings: false,
    initializerRange: c.initializer_range,
  };
  return resolveModelConfig(model, source);
}

/**
 * A published `config.json` for our config.
 * @throws ConfigError listing everything that the published model class cannot say
 */
export function configToHgrnBit(config: ModelConfig): Json {
  const [first] = config.mixers;
  const problems = [
    ...config.mixers.flatMap((mixer, i) => unsayable(mixer, first, `mixers[${i}]`)),
    ...mustBe('linear', 'bit', config.linear),
    ...mustBe('mlp.type', 'bit_glu', config.mlp.type),
    ...mustBe('mlp.moe', undefined, config.mlp.moe),
    ...mustBe('tieEmbeddings', false, config.tieEmbeddings),
    ...mustBe('packed', undefined, config.packed),
  ];
  if (first.type !== 'mlgru' || problems.length) throw new ConfigError('configToHgrnBit', problems);
  return {
    architectures: ['HGRNBitForCausalLM'],
    ...defaults,
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    num_hidden_layers: config.numLayers,
    expand_ratio: first.expandRatio,
    use_short_conv: first.useShortConv,
    conv_size: first.convSize,
    share_conv_kernel: first.shareConvKernel,
    use_lower_bound: first.useLowerBound,
    hidden_ratio: config.mlp.hiddenRatio,
    intermediate_size: config.mlp.intermediateSize,
    rms_norm_eps: config.normEps,
    initializer_range: config.initializerRange,
  };
}

const mustBe = (path: string, wanted: unknown, got: unknown): Problem[] =>
  wanted === got ? [] : [{ path, message: `must be ${quote(wanted)}, got ${quote(got)}` }];

function unsayable(mixer: MixerConfig, first: MixerConfig, at: string): Problem[] {
  if (mixer.type !== 'mlgru') return mustBe(`${at}.type`, 'mlgru', mixer.type);
  if (JSON.stringify(mixer) !== JSON.stringify(first))
    return [{ path: at, message: 'all layers must have the same options' }];
  return [...mustBe(`${at}.linear`, 'bit', mixer.linear), ...mustBe(`${at}.convBias`, false, mixer.convBias)];
}

/**
 * The tensors of a published checkpoint as `CausalLM` takes them; data are shared, not copied. What nothing reads there is left out: the table
 * of lower bounds of a model of one layer, and `q_conv1d` beside the convolutions of i and f.
 */
export function weightsFromHgrnBit(tensors: NamedArrays, { numLayers, mixers: [first] }: ModelConfig): NamedArrays {
  const separate = first.type === 'mlgru' && first.useShortConv && !first.shareConvKernel;
  const isUnread = (name: string) =>
    (numLayers === 1 && name === BOUNDS) || (separate && /\.attn\.q_conv1d\.weight$/.test(name));
  return new Map([...tensors].filter(([name]) => !isUnread(name)));
}
