import { asCairnError, CairnError } from '@cairn/base';

/** Runs one phase of a restore; its error keeps code and retriability and says in which phase it came. */
export async function inPhase<T>(phase: string, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    const { codeName, message, legacy, extraInfo, cause } = asCairnError(thrown);
    throw new CairnError(codeName, `failed to ${phase}: ${message}`, { legacy, extraInfo, cause: cause ?? thrown });
  }
}
