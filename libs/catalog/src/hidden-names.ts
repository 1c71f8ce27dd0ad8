import { CairnError } from '@cairn/base';

/** Begin of the names of collections that drills make: lists do not show them, users cannot take them. */
export const HIDDEN_PREFIX = '__cairn_drill_';

export function isHidden(collection: string): boolean {
  return collection.startsWith(HIDDEN_PREFIX);
}

/** InvalidParameter for a name that is kept for the house. */
export function refuseHidden(collection: string): void {
  if (isHidden(collection))
    throw new CairnError('InvalidParameter', `Invalid collection name: ${collection}. names with ${HIDDEN_PREFIX} are reserved`);
}
