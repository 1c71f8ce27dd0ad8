import { CairnError } from '@cairn/base';
import type { TemplateArrayValue, TemplateValue } from '@cairn/proto/milvus/schema';
import type { PlainValue } from '@cairn/schema';

/** Values for the `{name}` places of a filter, decoded. */
export function templateValues(values: Readonly<Record<string, TemplateValue>>): Record<string, PlainValue> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, plain(name, value)]));
}

function plain(name: string, { val }: TemplateValue): PlainValue {
  if (!val) throw new CairnError('InvalidParameter', `the value of expression template variable {${name}} is missing`);
  return val.$case === 'arrayVal' ? list(name, val.value) : val.value;
}

function list(name: string, { data }: TemplateArrayValue): PlainValue {
  if (!data) return [];
  if (data.$case === 'arrayData') return data.value.data.map((inner) => list(name, inner));
  if (data.$case === 'jsonData')
    throw new CairnError('NotSupported', `not supported: JSON values in expression template variable {${name}}`);
  return data.value.data;
}
