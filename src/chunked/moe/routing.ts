/** How tokens choose experts: the options, and what they must be. No TensorFlow.js here: configs are checked without it. */

/** Which experts a token goes through, and what each counts. */
export interface Routing {
  /** Experts of a token, k. */
  numExpertsPerToken: number;
  /** Divide the weights of a token by their sum; default true. */
  renormalize?: boolean;
  /** Factor on the weights; default 1. */
  routedScalingFactor?: number;
  /** Experts are chosen out of some groups of neighbours only; a divisor of E, default 1. */
  numExpertGroup?: number;
  /** Groups that a token keeps: those with the largest sums of their two best scores; default 1. */
  topkGroup?: number;
}

/** What is wrong with positive whole numbers of a routing over `numExperts`: the option, and what it must be; undefined for nothing. */
export function routingFault(
  {
    numExpertsPerToken: k,
    numExpertGroup: groups,
    topkGroup: top,
  }: Record<'numExpertsPerToken' | 'numExpertGroup' | 'topkGroup', number>,
  numExperts: number,
): [option: 'numExpertsPerToken' | 'numExpertGroup' | 'topkGroup', fault: string] | undefined {
  if (numExperts % groups !== 0)
    return ['numExpertGroup', `must divide the number of experts, ${numExperts}, got ${groups}`];
  if (top > groups) return ['topkGroup', `must be at most numExpertGroup, ${groups}, got ${top}`];
  const choice = (numExperts / groups) * top;
  if (k > choice)
    return ['numExpertsPerToken', `must be at most the ${choice} experts there are to choose from, got ${k}`];
  return undefined;
}
