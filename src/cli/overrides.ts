/** Config overrides among the arguments: `--train.lr=3e-4` and `--train.lr 3e-4`; everything else is left to the parser. */
export function splitOverrides(argv: string[]): { args: string[]; overrides: string[] } {
  const args: string[] = [];
  const overrides: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const match = /^--([A-Za-z]\w*(?:\.\w+)+)(=.*)?$/s.exec(argv[i]);
    if (!match) args.push(argv[i]);
    else if (match[2] !== undefined) overrides.push(argv[i]);
    else overrides.push(`${argv[i]}=${argv[++i] ?? ''}`);
  }
  return { args, overrides };
}
