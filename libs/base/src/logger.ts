import { destination, type Level, pino } from 'pino';

/** Structured log. Errors are logged where they are handled, not where they are made. */
export interface Logger {
  debug(fields: Record<string, unknown>, message: string): void;
  info(fields: Record<string, unknown>, message: string): void;
  warn(fields: Record<string, unknown>, message: string): void;
  error(fields: Record<string, unknown>, message: string): void;
  child(fields: Record<string, unknown>): Logger;
}

export interface LogOptions {
  readonly level: Level | 'silent';
  /** Adds fields to each line, such as the ids of the current trace. */
  readonly mixin?: () => Record<string, unknown>;
}

/** A pino logger to standard error, so that standard output stays for results. */
export function createLogger(options: LogOptions): Logger {
  return pino(
    {
      level: options.level,
      base: null,
      ...(options.mixin ? { mixin: options.mixin } : {}),
      serializers: { error: pino.stdSerializers.err },
    },
    destination({ dest: 2, sync: false }),
  );
}

const nothing = (): void => {};
export const silentLogger: Logger = { debug: nothing, info: nothing, warn: nothing, error: nothing, child: () => silentLogger };
