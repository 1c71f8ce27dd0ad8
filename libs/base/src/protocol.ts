import { CairnError } from './errors.ts';

/** Versions of the protocol between services that a program speaks, both ends included. */
export interface ProtocolRange {
  readonly min: number;
  readonly max: number;
}

/**
 * What this program speaks. A change that an older program would misunderstand (a new meaning, a message that must not be ignored) raises `max`;
 * `min` is raised when an old version is no longer spoken. Two that share a version work side by side, which is what a rolling upgrade needs.
 */
export const PROTOCOL: ProtocolRange = { min: 1, max: 1 };

/** Header of inner calls: `<min>-<max>` of the caller. */
export const PROTOCOL_HEADER = 'cairn-protocol';

export const protocolText = ({ min, max }: ProtocolRange): string => `${min}-${max}`;

/** Range out of a header or a record; who says nothing (a program from before there were versions) speaks version 1. */
export function protocolOf(said: string | undefined | { readonly protocolMin: number; readonly protocolMax: number }): ProtocolRange {
  if (said === undefined || said === '') return { min: 1, max: 1 };
  if (typeof said !== 'string') return said.protocolMax === 0 ? { min: 1, max: 1 } : { min: said.protocolMin, max: said.protocolMax };
  const [min, max] = said.split('-').map(Number);
  if (min === undefined || max === undefined || !Number.isInteger(min) || !Number.isInteger(max) || min > max)
    throw new CairnError('NodeNotMatch', `the other side names no protocol versions: '${said}'`);
  return { min, max };
}

/** NodeNotMatch, in words for whoever runs the upgrade, when the two share no version. */
export function requireProtocol(ours: ProtocolRange, theirs: ProtocolRange, who: string): void {
  if (ours.min <= theirs.max && theirs.min <= ours.max) return;
  const older = theirs.max < ours.min ? 'the other is too old' : 'this one is too old';
  throw new CairnError(
    'NodeNotMatch',
    `${who} speaks the inner protocol ${protocolText(theirs)}, this program ${protocolText(ours)}: ${older} to work side by side; upgrade by way of a version between`,
  );
}
