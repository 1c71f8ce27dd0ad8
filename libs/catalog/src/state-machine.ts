import { CairnError } from '@cairn/base';

/** state x event -> next state; undefined: the event is illegal in that state. Every pair is written down, legal or not. */
export type StateTable<S extends string, E extends string> = { readonly [state in S]: { readonly [event in E]: S | undefined } };

export interface StateMachine<S extends string, E extends string> {
  readonly name: string;
  readonly states: readonly S[];
  readonly events: readonly E[];
  readonly table: StateTable<S, E>;
  /** The state after `event`; Internal when the table has none. */
  next(state: S, event: E): S;
  can(state: S, event: E): boolean;
  /** No event leads out of it. */
  isTerminal(state: S): boolean;
  /** The table for docs. */
  toMarkdown(): string;
}

/** States are the keys of the table; each entry must lead to one of them. */
export function defineMachine<const T extends { readonly [state: string]: { readonly [event: string]: (keyof T & string) | undefined } }>(
  name: string,
  table: T,
): StateMachine<keyof T & string, keyof T[keyof T] & string> {
  return machineOf(name, table as StateTable<keyof T & string, keyof T[keyof T] & string>);
}

function machineOf<S extends string, E extends string>(name: string, table: StateTable<S, E>): StateMachine<S, E> {
  const states = Object.keys(table) as S[];
  const events = [...new Set(states.flatMap((state) => Object.keys(table[state]) as E[]))];
  const next = (state: S, event: E): S => {
    const after = table[state]?.[event];
    if (after === undefined) throw new CairnError('Internal', `${name}: event ${event} is illegal in state ${state}`);
    return after;
  };
  return {
    name,
    states,
    events,
    table,
    next,
    can: (state, event) => table[state]?.[event] !== undefined,
    isTerminal: (state) => events.every((event) => table[state][event] === undefined),
    toMarkdown: () =>
      [
        `| ${name} | ${events.join(' | ')} |`,
        `|${'---|'.repeat(events.length + 1)}`,
        ...states.map((state) => `| ${state} | ${events.map((event) => table[state][event] ?? '·').join(' | ')} |`),
      ].join('\n'),
  };
}
