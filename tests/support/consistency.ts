/** `cairn check` as a function: what every end-to-end test ends with. */
import { SystemRuntime } from '@cairn/base';
import { UpkeepDefinition } from '@cairn/proto/cairn/upkeep';
import { GrpcTransport } from '@cairn/rpc';

const CHECK_TIMEOUT_MS = 120_000;

interface Running {
  /** Of one server. */
  readonly address?: string;
  /** Of the proxies of a cluster. */
  readonly addresses?: readonly string[];
  stop(): Promise<void>;
}

/** Findings in words, one a line; empty when all is well. `deep`: every object is read. */
export async function findingsOf(address: string, deep = false): Promise<string> {
  const transport = new GrpcTransport(new SystemRuntime(), { timeoutMs: CHECK_TIMEOUT_MS });
  try {
    const { findings } = await transport.client(UpkeepDefinition, address).check({ deep }, { timeoutMs: CHECK_TIMEOUT_MS });
    return findings.map(({ kind, subject, detail }) => `${kind} ${subject}: ${detail}`).join('\n');
  } finally {
    transport.close();
  }
}

/** The end of a suite: the checker, which reads every object, must find nothing; then the server stops, whatever was found. */
export async function stopChecked(running: Running | undefined): Promise<void> {
  if (!running) return;
  try {
    const findings = await findingsOf(running.address ?? running.addresses?.[0] ?? '', true);
    if (findings !== '') throw new Error(`the checker finds:\n${findings}`);
  } finally {
    await running.stop();
  }
}
