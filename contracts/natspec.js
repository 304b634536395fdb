// Names what of src/ is not documented: every contract, function, error, event, struct and enum has a `@notice`, `@dev` or
// `@inheritdoc`, and what can be called or caught from elsewhere has all of its parameters. Run by build.sh --check.
import fs from 'node:fs';
import path from 'node:path';
import solc from 'solc';

const input = JSON.parse(fs.readFileSync(path.resolve(process.argv[2]), 'utf8'));
input.settings.outputSelection = { '*': { '': ['ast'] } };
const { sources } = JSON.parse(solc.compile(JSON.stringify(input)));

const DOCUMENTED = new Set([
  'ContractDefinition', 'FunctionDefinition', 'ErrorDefinition', 'EventDefinition', 'StructDefinition', 'EnumDefinition', 'ModifierDefinition',
]);
const problems = [];

/** What of a declaration's parameters and results its text leaves out. */
function undocumented({ nodeType, visibility, kind, parameters, returnParameters }, text) {
  const callable = nodeType === 'FunctionDefinition' && visibility !== 'private' && kind !== 'receive';
  if (!callable && nodeType !== 'ErrorDefinition' && nodeType !== 'EventDefinition') return [];
  const named = new Set([...text.matchAll(/@param (\S+)/g)].map(([, name]) => name));
  const missing = parameters.parameters.filter(({ name }) => name && !named.has(name)).map(({ name }) => `@param ${name}`);
  const returns = [...text.matchAll(/@return /g)].length;
  const wanted = returnParameters?.parameters.length ?? 0;
  return returns < wanted ? [...missing, `${wanted - returns} @return`] : missing;
}

function visit(node, source, inside) {
  if (!DOCUMENTED.has(node.nodeType)) return;
  const name = node.name || node.kind;
  const place = inside ? `${inside}.${name}` : name;
  const text = node.documentation?.text ?? '';
  if (!/@(notice|dev|inheritdoc|title)/.test(text) && !(name === 'constructor' && text)) problems.push(`${source}: ${place} is not documented`);
  else if (!text.includes('@inheritdoc')) {
    for (const missing of undocumented(node, text)) problems.push(`${source}: ${place} has no ${missing}`);
  }
  if (node.nodeType === 'ContractDefinition') for (const child of node.nodes) visit(child, source, name);
}

for (const [source, { ast }] of Object.entries(sources)) {
  if (source.startsWith('src/')) for (const node of ast.nodes) visit(node, source, '');
}
for (const problem of problems) console.error(problem);
process.exit(problems.length > 0 ? 1 : 0);
