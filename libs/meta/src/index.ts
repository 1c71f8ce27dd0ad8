export * from './election.ts';
export * from './meta-store.ts';
