import type { CollectionRecord, Property } from '@cairn/proto/cairn/meta';
import { readTimeFields, type TimeForm, TimeZone } from '@cairn/schema';

/** Property of a database, for the collections that are made in it, and of a collection: the zone of times that are sent without an offset. */
export const TIMEZONE = 'timezone';

/** The zone of a collection's times. One that this runtime does not know counts as UTC: it was known where the property was set. */
export function zoneOf(record: CollectionRecord): TimeZone {
  const name = record.properties.find(({ key }) => key === TIMEZONE)?.value;
  if (name === undefined) return TimeZone.UTC;
  try {
    return TimeZone.of(name);
  } catch {
    return TimeZone.UTC;
  }
}

/** InvalidParameter for a zone that is none. */
export function checkTimeZone(properties: readonly Property[]): void {
  for (const { key, value } of properties) if (key === TIMEZONE) TimeZone.of(value);
}

/** How a read shows times: as its parameters `timezone` and `time_fields` say, else in the collection's zone. */
export function timeForm(record: CollectionRecord, params: { readonly timezone: string; readonly timeFields: string }): TimeForm {
  return { zone: params.timezone === '' ? zoneOf(record) : TimeZone.of(params.timezone), fields: readTimeFields(params.timeFields) };
}
