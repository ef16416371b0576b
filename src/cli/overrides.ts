/**
 * Config settings among the arguments: `--train.lr=3e-4`, `--train.lr 3e-4`, and `--seed=1` for the names in `topLevel`. A setting
 * without a value is true. Everything else is left to the parser.
 */
export function splitOverrides(
  argv: readonly string[],
  topLevel: readonly string[] = [],
): { args: string[]; overrides: string[] } {
  const args: string[] = [];
  const overrides: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const [, path, value] = /^--([A-Za-z]\w*(?:\.\w+)*)(?:=(.*))?$/s.exec(argv[i]) ?? [];
    const isSetting = path !== undefined && (path.includes('.') || topLevel.includes(path));
    if (!isSetting) args.push(argv[i]);
    else if (value !== undefined) overrides.push(argv[i]);
    else if (i + 1 === argv.length || argv[i + 1].startsWith('--')) overrides.push(`${argv[i]}=true`);
    else overrides.push(`${argv[i]}=${argv[++i]}`);
  }
  return { args, overrides };
}
