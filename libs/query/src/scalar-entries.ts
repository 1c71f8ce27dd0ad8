import { CairnError, type Runtime } from '@cairn/base';
import { addJsonValues, type ColumnRef, type JsonKind, type JsonValues, noJsonValues, parseColumn } from '@cairn/expr';
import { columnEntries, type IndexSpec, type ScalarBuildTask } from '@cairn/index';
import { type CollectionSchema, type Column, DataType, type Field, type FixedColumn, keyColumn } from '@cairn/schema';
import { pause } from '@cairn/segment';

/** Rows of JSON that are read in one stretch: about 2 ms. */
const JSON_ROWS = 2_000;
/** Bytes of a group: a number of 32 bits holds four, and single bytes tell nothing. */
const GRAM_BYTES = { least: 2, most: 4 };

const KIND_OF_CAST: ReadonlyMap<string, { readonly kind: JsonKind; readonly elements: boolean }> = new Map([
  ['BOOL', { kind: 'bool', elements: false }],
  ['DOUBLE', { kind: 'number', elements: false }],
  ['VARCHAR', { kind: 'text', elements: false }],
  ['ARRAY_BOOL', { kind: 'bool', elements: true }],
  ['ARRAY_DOUBLE', { kind: 'number', elements: true }],
  ['ARRAY_VARCHAR', { kind: 'text', elements: true }],
]);

/** What a scalar index of a field is built from. InvalidParameter when its path is none of the field, or its cast is unknown. */
export async function scalarEntries(
  column: Column,
  field: Field,
  spec: IndexSpec,
  schema: CollectionSchema,
  runtime: Runtime,
): Promise<Pick<ScalarBuildTask, 'entries' | 'header'>> {
  const grams = spec.indexType === 'NGRAM';
  const gram = grams ? Math.min(GRAM_BYTES.most, Math.max(GRAM_BYTES.least, Number(spec.params.min_gram ?? 0))) : 0;
  if (field.type === DataType.Json && column.kind === 'bytes') {
    const { json_path: text = '', json_cast_type: cast = '' } = spec.params;
    const path = jsonIndexPath(field, text, schema);
    const wanted = castOf(field, cast);
    const found = noJsonValues();
    for (let from = 0; from < column.length; from += JSON_ROWS) {
      if (from > 0) await pause(runtime);
      addJsonValues(found, column, path, wanted.kind, wanted.elements, from, Math.min(column.length, from + JSON_ROWS));
    }
    const content = grams ? 'grams' : wanted.elements ? 'elements' : 'values';
    return {
      entries: { values: valuesColumn(found, wanted.kind), rowOf: Int32Array.from(found.rows) },
      header: { content, path, gram, exact: found.exact },
    };
  }
  const entries = columnEntries(column);
  if (!entries)
    throw new CairnError('NotSupported', `not supported: index ${spec.indexType} on field ${field.name} (${column.kind} column)`);
  return { entries, header: { content: grams ? 'grams' : column.kind === 'list' ? 'elements' : 'values', gram, exact: true } };
}

/** The index with its path into JSON in one form, `doc["a"][0]`, however it was written. What is wrong of it is InvalidParameter in Milvus's legacy form. */
export function checkScalarIndex(field: Field, spec: IndexSpec, schema: CollectionSchema): IndexSpec {
  if (field.type !== DataType.Json || spec.params.json_path === undefined) return spec;
  try {
    const path = jsonIndexPath(field, spec.params.json_path, schema);
    castOf(field, spec.params.json_cast_type ?? '');
    return { ...spec, params: { ...spec.params, json_path: `${field.name}${path.map((step) => `[${JSON.stringify(step)}]`).join('')}` } };
  } catch (error) {
    throw new CairnError('InvalidParameter', error instanceof Error ? error.message : String(error), { legacy: 1, cause: error });
  }
}

function castOf(field: Field, cast: string): { readonly kind: JsonKind; readonly elements: boolean } {
  const wanted = KIND_OF_CAST.get(cast.toUpperCase());
  if (wanted) return wanted;
  throw new CairnError(
    'InvalidParameter',
    `index on JSON field ${field.name}: json_cast_type ${cast} is none of ${[...KIND_OF_CAST.keys()].join(', ')}`,
  );
}

/** The path of an index on JSON as filters have it: `doc` (all of it), `doc["a"]["b"]`, `["a"]`, or a key of the dynamic field. */
export function jsonIndexPath(field: Field, text: string, schema: CollectionSchema): ColumnRef['path'] {
  const column = parseColumn(`${text.trim().startsWith('[') ? field.name : ''}${text}`, schema);
  if (column.fieldId !== field.id) throw new CairnError('InvalidParameter', `json_path ${text} is no path into field ${field.name}`);
  return column.path;
}

function valuesColumn({ values }: JsonValues, kind: JsonKind): ReturnType<typeof keyColumn> & { kind: 'fixed' | 'bytes' } {
  if (kind === 'text') return keyColumn(values as string[]) as Extract<Column, { kind: 'bytes' }>;
  const fixed = (type: DataType, of: Float64Array | Int8Array): FixedColumn => ({
    kind: 'fixed',
    type,
    length: of.length,
    values: of,
    validity: null,
  });
  return kind === 'number'
    ? fixed(DataType.Double, Float64Array.from(values as number[]))
    : fixed(DataType.Bool, Int8Array.from(values, Number));
}
