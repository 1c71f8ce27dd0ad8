import { CairnError } from '@cairn/base';
import { refuseHidden } from '@cairn/catalog';

/** Longest snapshot name, characters. */
const MAX_SNAPSHOT_NAME_LENGTH = 255;

/** Milvus's rules for snapshot names, which hold in every call that takes one. Returns the name without the blanks around it. */
export function checkSnapshotName(raw: string): string {
  const name = raw.trim();
  if (name === '') throw new CairnError('InvalidParameter', 'snapshot name should be not empty');
  if (name.length > MAX_SNAPSHOT_NAME_LENGTH) {
    throw new CairnError(
      'InvalidParameter',
      `invalid snapshot name: ${name.slice(0, 32)}…. the length of snapshot name must be not greater than limit, got ${name.length} characters, at most ${MAX_SNAPSHOT_NAME_LENGTH} are allowed`,
    );
  }
  if (!/^[A-Za-z_]/.test(name)) {
    throw new CairnError(
      'InvalidParameter',
      `invalid snapshot name: ${name}. the first character of snapshot name must be an underscore or letter`,
    );
  }
  if (!/^[A-Za-z0-9_]*$/.test(name)) {
    throw new CairnError(
      'InvalidParameter',
      `invalid snapshot name: ${name}. snapshot name can only contain numbers, letters and underscores`,
    );
  }
  return name;
}

/** Rules for the name of a collection that a restore makes. */
export function checkCollectionName(name: string, maxLength: number): void {
  refuseHidden(name);
  if (name.length > maxLength) {
    throw new CairnError(
      'InvalidParameter',
      `Invalid collection name: ${name.slice(0, 32)}…. the length of a collection name must be at most ${maxLength} characters, got ${name.length}`,
    );
  }
  if (!/^[A-Za-z_]/.test(name)) {
    throw new CairnError(
      'InvalidParameter',
      `Invalid collection name: ${name}. the first character of a collection name must be an underscore or letter`,
    );
  }
  if (!/^[A-Za-z0-9_]*$/.test(name)) {
    throw new CairnError(
      'InvalidParameter',
      `Invalid collection name: ${name}. collection name can only contain numbers, letters and underscores`,
    );
  }
}

/** A span of seconds from 0 to `max`. */
export function checkSeconds(name: string, seconds: bigint, max: number): number {
  if (seconds < 0n) throw new CairnError('InvalidParameter', `${name} must be non-negative, got ${seconds}`);
  if (seconds > BigInt(max))
    throw new CairnError('InvalidParameter', `${name} exceeds maximum: must not exceed ${max} seconds, got ${seconds}`);
  return Number(seconds);
}
